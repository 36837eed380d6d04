"""A pool whose values cross as its own codec has them."""

from __future__ import annotations

import base64
import json

import pytest

from osqueue import LocalPool
from tests.cli.command_line import osqueue
from tests.e2e import packed
from tests.e2e.program import Program

pytestmark = pytest.mark.usefixtures("nothing_is_left")

VALUE = {"a": [1, 2.5, None], "b": "ü"}


def test_payloads_and_results_of_every_verb_cross_by_the_codec(tmp_path):
    with LocalPool(packed.echo, workers=2, path=tmp_path / "queue", codec=packed.Packed) as pool:
        job_id = pool.push(VALUE)
        pool.push_many([1, 2])
        assert pool.submit(VALUE).result(30) == VALUE
        assert list(pool.map([VALUE, 3, None])) == [VALUE, 3, None]
        pool.join()
        record = pool.get(job_id)
        assert packed.Packed.decode(record.payload) == packed.Packed.decode(record.result) == VALUE


def test_an_object_crosses_by_its_name_and_bytes_that_are_no_json_are_kept_as_they_are(tmp_path):
    with LocalPool(packed.echo, workers=1, path=tmp_path / "queue", codec=packed.prefixed) as pool:
        assert pool.submit(7).result(30) == 7
        job_id = pool.push(8)
    shown = osqueue("show", tmp_path / "queue", job_id, "--json", cwd=tmp_path)
    line = next(
        line
        for path in (tmp_path / "queue").glob("archive/*/*")
        for line in path.read_text().splitlines()
        if f'"id":{job_id},' in line
    )

    for document in (json.loads(shown.stdout), json.loads(line)):
        for name in ("payload_base64", "result_base64"):
            assert base64.b64decode(document[name]) == b"\xff\x00\n8"


def test_bytes_may_be_empty(tmp_path):
    with LocalPool(packed.echo, workers=1, path=tmp_path / "queue", codec=packed.Empty) as pool:
        assert pool.submit("anything").result(30) == ["empty", 0]


def test_a_codec_of_the_main_module_is_found_by_its_workers(tmp_path):
    program = Program(
        tmp_path,
        """
        import json
        from osqueue import LocalPool

        class Shouting:
            def encode(self, value):
                return json.dumps(value).upper().encode()

            def decode(self, data):
                return json.loads(data)

        shouting = Shouting()

        def echo(value):
            return value

        if __name__ == "__main__":
            with LocalPool(echo, workers=1, codec=shouting) as pool:
                print(pool.submit("quiet").result())
        """,
    )

    ended = program.end()

    assert (ended.status, ended.out) == (0, "QUIET\n"), ended.err
