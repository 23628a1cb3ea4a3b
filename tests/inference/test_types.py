"""The rows of word types, read from a graph's file: those of the checkpoint, to the last bit."""

import os
import shutil

import numpy as np
import onnx
import pytest
import safetensors.numpy

from inference import ArtifactError, Classifier
from inference.types import Types
from tests.support import make_base

GRAPHS = ("model.onnx", "model.int8.onnx")


def of_checkpoint(checkpoint):
    """The word embeddings of a Transformers checkpoint, shape (types, hidden)."""
    weights = safetensors.numpy.load_file(checkpoint / "model.safetensors")
    (name,) = (name for name in weights if name.endswith("word_embeddings.weight"))
    return weights[name]


@pytest.fixture(scope="module", params=["bert", "distilbert", "roberta"])
def exported(request, tmp_path_factory):
    """A folder with both graphs of a tiny model of a family, and its checkpoint."""
    import transformers

    from training.checkpoint import Checkpoint
    from training.export import export_graphs

    folder = tmp_path_factory.mktemp(request.param)
    base = make_base(folder / "base", request.param)
    transformers.AutoModelForSequenceClassification.from_pretrained(base).save_pretrained(folder / "checkpoint")
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder / "checkpoint")
    export_graphs(Checkpoint.load(str(folder / "checkpoint")), fp32=folder / GRAPHS[0], int8=folder / GRAPHS[1])
    return folder


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_graph_of_every_family_gives_the_rows_of_its_checkpoint(exported, graph):
    """Fused in fp32, a look-up of its own in int8: the rows are the same, and rounded by neither."""
    expected = of_checkpoint(exported / "checkpoint")
    types = Types(exported / graph)

    assert types.shape == expected.shape
    rows = types.rows(range(len(expected)))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(types.rows([7, 3, 7]), expected[[7, 3, 7]])
    assert types.rows([]).shape == (0, expected.shape[1])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_loaded_model_gives_its_own_rows(model_folder, precision):
    engine = Classifier.load(model_folder, precision=precision).engine

    rows = engine.types.rows([4, 9])

    np.testing.assert_array_equal(rows, of_checkpoint(model_folder / "checkpoint")[[4, 9]])


@pytest.mark.parametrize("id_", [-1, 10_000])
def test_an_id_without_a_row_is_an_error(model_folder, id_):
    """A row before the first or after the last would be some other part of the file."""
    types = Types(model_folder / GRAPHS[0])

    with pytest.raises(ArtifactError, match=rf"has rows for {types.shape[0]} types, none for token {id_}"):
        types.rows([3, id_])


def test_a_graph_that_takes_the_place_of_the_one_that_is_served_changes_nothing(tmp_path, model_folder):
    """A model that is replaced finishes what was asked of it."""
    path = shutil.copy(model_folder / GRAPHS[0], tmp_path / "model.onnx")
    types, expected = Types(path), of_checkpoint(model_folder / "checkpoint")
    other = onnx.load(path)
    for tensor in other.graph.initializer:
        if list(tensor.dims) == list(expected.shape):
            tensor.raw_data = bytes(len(tensor.raw_data))
    onnx.save(other, tmp_path / "new.onnx")
    (tmp_path / "new.onnx").replace(path)

    np.testing.assert_array_equal(types.rows([5]), expected[[5]])
    assert not Types(path).rows([5]).any()


def test_a_file_that_is_cut_short_while_it_is_read_is_an_error(tmp_path, model_folder):
    """A mapping would end the process with a bus error."""
    path = shutil.copy(model_folder / GRAPHS[0], tmp_path / "model.onnx")
    types = Types(path)
    types.rows([5])
    os.truncate(path, 1000)

    with pytest.raises(ArtifactError, match="was altered while it was in use"):
        types.rows([5])


def without_its_matrix(graph):
    """The ids are used, but pick no constant."""
    for node in graph.node:
        if node.op_type == "EmbedLayerNormalization":
            node.input[2] = "elsewhere"


def in_halves(graph):
    for tensor in graph.initializer:
        if "word_embeddings" in tensor.name:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def in_a_list(graph):
    for tensor in graph.initializer:
        if "word_embeddings" in tensor.name:
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, 1, values.shape, values.ravel()))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (without_its_matrix, "0 constant matrices are looked up by input_ids"),
        (in_halves, "has 2 dimensions and numbers of ONNX's type 10"),
        (in_a_list, "does not have its 77 x 32 numbers as raw data in this file"),
    ],
)
def test_a_graph_without_such_a_matrix_says_what_was_found(tmp_path, model_folder, change, found):
    model = onnx.load(model_folder / GRAPHS[0])
    change(model.graph)
    onnx.save(model, tmp_path / "model.onnx")

    with pytest.raises(ArtifactError, match=rf"model\.onnx: its word embeddings were not found .*{found}.*export"):
        Types(tmp_path / "model.onnx").rows([5])


@pytest.mark.parametrize("content", [b"", b"not an ONNX file at all", b"\xff" * 64, b"\x3a\xff\xff\xff\xff\x0f"])
def test_a_file_that_is_no_graph_says_so(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)

    with pytest.raises(ArtifactError, match="its word embeddings were not found"):
        Types(path).rows([0])
