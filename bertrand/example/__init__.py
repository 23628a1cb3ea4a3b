"""A support desk's messages in eight intents, written for this project: what `bertrand demo` trains on."""

from pathlib import Path

TRAIN = Path(__file__).with_name("train.csv")
TEST = Path(__file__).with_name("test.csv")
