"""What /openapi.json says is true: hundreds of generated requests, right and wrong, are answered as it promises."""

import re
import subprocess
import sys

from service.routes import ROUTES

# Not that every valid body is accepted: a blank text is a string, and refused all the same.
NOT_PROMISED = "positive_data_acceptance"


def test_every_operation_answers_as_the_description_says(server, tmp_path):
    """Schemathesis: no server error, no undescribed status, media type, shape or header, no bad data taken."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server}/openapi.json", "--no-color"]
    command += ["--phases", "examples,coverage,fuzzing", "--checks", "all", "--exclude-checks", NOT_PROMISED]
    command += ["--max-examples", "20", "--generation-deterministic", "--continue-on-failure"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr
    operations = sum(len(methods) for methods in ROUTES.values()) - 1  # what is asked for the description is not one
    assert f"{operations} selected / {operations} total" in done.stdout
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated, done.stdout
    assert int(generated[1]) > 10 * operations
