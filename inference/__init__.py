"""
Sentences to scores and embeddings, with numpy, onnxruntime and tokenizers alone.

>>> from inference import Classifier
>>> classifier = Classifier.load("models/demo")
>>> classifier.classify(["I was charged twice, please refund me"])[0].label
'refund'
"""

import os

# From 1.29 on, ONNX Runtime reports each process and model to its makers unless it is told not to before it starts.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from inference.classifier import Analysis, Classifier, Prediction
from inference.errors import ArtifactError, BertrandError, InputError, TextError

__all__ = ["Analysis", "ArtifactError", "BertrandError", "Classifier", "InputError", "Prediction", "TextError"]
