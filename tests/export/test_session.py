from pathlib import Path

import pytest

from export.session import LoadError, open_session


def test_file_that_onnxruntime_refuses_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(LoadError, match=r"broken.onnx: ONNX Runtime refuses it: .+"):
        open_session(tmp_path / "broken.onnx")
