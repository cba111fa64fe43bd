"""`python -m biascxr.inspect_tfrecord FILE...`: an answer for our records and anyone else's, an error for what is none."""

import contextlib
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from biascxr.config import RecordsConfig
from biascxr.errors import ends_with_its_reader
from biascxr.inspect_tfrecord import inspect_file, main
from biascxr.records import RecordError, build_records, encode_example, write_record
from biascxr.records.image import encode


def write(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for features in records:
            write_record(file, encode_example(features))
    return path


@pytest.fixture
def our_shard(tiny_images, make_cohort, tmp_path):
    files = sorted(f.name for f in tiny_images.iterdir())
    split = ["train"] * 25 + ["validation", "calibration", "test"] * 5
    cohort = make_cohort([f.split(".")[0] for f in files], files, tiny_images, split=split)
    folder = tmp_path / "records"
    folder.mkdir()
    build_records(cohort, RecordsConfig(image_size=48), folder, n_workers=1)
    return folder / "biascxr_generic-train.tfrecord-00000-of-00001"


def foundation(seed, length=1376):
    vector = np.random.default_rng(seed).normal(size=length).astype(np.float32)
    return {"embedding": vector, "image/id": f"gs://bucket/{seed}.dcm"}


def test_our_shard_agrees_with_its_schema(our_shard, capsys):
    assert main([str(our_shard)]) == 0
    answer = capsys.readouterr().out
    assert "25 records" in answer
    assert "schema: TensorFlow Datasets (features.json beside the file)" in answer
    assert "agrees with the schema" in answer
    assert "disagrees" not in answer
    assert "PNG 48x48, pixels 0 to 255" in answer
    for key in ("age", "image", "image_id", "labels/Edema", "labels/Pleural Effusion", "patient_id", "sex", "study_id", "view"):
        assert f"\n  {key} " in answer


def test_our_shard_key_by_key(our_shard):
    summary = inspect_file(our_shard)
    assert summary.n_records == 25
    assert summary.n_bytes == our_shard.stat().st_size
    assert {key: next(iter(s.types)) for key, s in summary.keys.items()} == {
        **dict.fromkeys(["image", "image_id", "patient_id", "sex", "study_id", "view"], "bytes"),
        **dict.fromkeys(["age", "labels/Edema", "labels/Pleural Effusion"], "float"),
    }
    assert all(s.n_records == 25 and s.lengths == {1} for s in summary.keys.values())
    assert summary.keys["image_id"].sample == "'image_000'"
    assert summary.disagreements == []


def test_what_disagrees_with_our_schema_is_said(our_shard):
    write(our_shard, {"image_id": "a", "age": 3, "extra": 1.0, "sex": "F", "view": "AP", "study_id": "s", "patient_id": "p"})
    found = inspect_file(our_shard).disagreements
    assert "image: expected by the schema, absent" in found
    assert "labels/Edema: expected by the schema, absent" in found
    assert "age: expected float, found int64" in found
    assert "extra: not in the schema" in found
    assert not any(line.startswith(("sex", "view", "image_id")) for line in found)


def test_a_cxr_foundation_file(tmp_path, capsys):
    path = write(tmp_path / "a.tfrecord", foundation(1))
    assert main([str(path)]) == 0
    answer = capsys.readouterr().out
    assert "1 record" in answer
    assert "schema: CXR Foundation vectors" in answer
    assert "[1376]" in answer
    assert "'gs://bucket/1.dcm'" in answer
    assert "agrees with the schema" in answer


def test_a_cxr_foundation_file_of_another_length_or_with_nan_disagrees(tmp_path):
    bad = foundation(2)
    bad["embedding"][5] = np.nan
    assert inspect_file(write(tmp_path / "a.tfrecord", foundation(1, 512))).disagreements == [
        "embedding: expected length 1376 or 88064, found 512"
    ]
    assert inspect_file(write(tmp_path / "b.tfrecord", foundation(1), bad)).disagreements == [
        "embedding: NaN or infinite values in 1 records"
    ]
    assert inspect_file(write(tmp_path / "c.tfrecord", {"embedding": foundation(1)["embedding"]})).disagreements == [
        "image/id: expected by the schema, absent"
    ]


def test_mimic_racial_fairness_records(tmp_path, make_image):
    record = {"jpg_bytes": encode(make_image(0), "jpeg"), "subject_id": 10000032, "study_id": 50414267, "ethnicity": 0}
    summary = inspect_file(write(tmp_path / "a.tfrecord", record, {**record, "ethnicity": 3}))
    assert summary.form == "MIMIC Racial Fairness images"
    assert summary.keys["jpg_bytes"].sample.startswith("JPEG 90x70, pixels ")
    assert summary.keys["subject_id"].sample == "10000032"  # every digit of an identifier


def test_someone_elses_records_are_compared_with_each_other(tmp_path):
    path = write(
        tmp_path / "a.tfrecord",
        {"x": np.zeros(3, np.float32), "y": 1, "note": "a"},
        {"x": np.zeros(4, np.float32), "y": "text"},
    )
    summary = inspect_file(path)
    assert summary.form.startswith("no known form")
    assert set(summary.disagreements) == {
        "note: in 1 of 2 records only",
        "x: several lengths (3 to 4)",
        "y: several types (bytes, int64)",
    }


def test_records_written_by_tensorflow_datasets_agree_with_their_metadata(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(8, 8, 1)), "v": tfds.features.Tensor(shape=(4,), dtype=np.float32), "n": np.int64}
    )
    path = tmp_path / "toy-train.tfrecord-00000-of-00001"
    with open(path, "wb") as file:
        for n in range(3):
            example = {"image": np.full((8, 8, 1), n, np.uint8), "v": np.ones(4, np.float32), "n": n}
            write_record(file, features.serialize_example(features.encode_example(example)))
    features.save_config(str(tmp_path))
    summary = inspect_file(path)
    assert summary.n_records == 3
    assert summary.form.startswith("TensorFlow Datasets")
    assert summary.disagreements == []


def test_a_text_file_renamed_is_one_clear_error(tmp_path, capsys):
    path = tmp_path / "notes.tfrecord"
    path.write_text("subject_id,study_id,dicom_id,path\n1,2,3,a.jpg\n")
    assert main([str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"{path}: not a TFRecord file (no valid header)\n"


def test_one_bad_file_does_not_hide_the_others(tmp_path, capsys):
    good = write(tmp_path / "good.tfrecord", foundation(1))
    bad = tmp_path / "bad.tfrecord"
    bad.write_bytes(good.read_bytes()[:-7])
    (tmp_path / "empty").mkdir()
    assert main([str(bad), str(tmp_path / "none.tfrecord"), str(tmp_path / "empty"), str(good)]) == 1
    out, err = capsys.readouterr()
    assert str(good) in out
    assert f"{bad}: cut off inside record 0" in err
    assert "none.tfrecord: No such file or directory" in err
    assert f"{tmp_path / 'empty'}: no TFRecord file in this folder" in err


def test_a_file_without_records_says_so(tmp_path):
    summary = inspect_file(write(tmp_path / "a.tfrecord"))
    assert summary.n_records == 0
    assert summary.disagreements == ["the file holds no record"]


def test_records_that_hold_no_examples_are_an_error(tmp_path):
    path = tmp_path / "a.tfrecord"
    with open(path, "wb") as file:
        write_record(file, b"\xff\xff\xff\xff")
    with pytest.raises(RecordError, match="not a serialized"):
        inspect_file(path)


@pytest.mark.parametrize("content", ["{not json", "[1, 2]"])
def test_a_features_json_that_is_none_is_an_error_not_a_guess(tmp_path, content):
    path = write(tmp_path / "a.tfrecord", foundation(1))
    (tmp_path / "features.json").write_text(content)
    with pytest.raises(RecordError, match=r"features\.json beside the file cannot be read as a schema"):
        inspect_file(path)


class TestVerify:
    """`--verify`: every damaged record by its number and place, and the others all the same."""

    @pytest.fixture
    def five(self, tmp_path):
        return write(tmp_path / "five.tfrecord", *(foundation(i) for i in range(5)))

    def damage(self, path, *places):
        data = bytearray(path.read_bytes())
        for place in places:
            data[place] ^= 1
        path.write_bytes(data)

    def test_a_whole_file(self, five, capsys):
        assert main(["--verify", str(five)]) == 0
        assert "5 records, " in (out := capsys.readouterr().out) and "every CRC correct" in out

    def test_damaged_records_are_named_and_the_others_counted(self, five, capsys):
        size = five.stat().st_size // 5
        self.damage(five, size + 100, 3 * size + 4000)
        assert main(["--verify", str(five)]) == 1
        out = capsys.readouterr().out
        assert "3 records and 2 damaged, " in out and "every CRC correct" not in out
        assert (
            f"    - record 1 is damaged (CRC), at byte {size:,}\n    - record 3 is damaged (CRC), at byte {3 * size:,}" in out
        )

    def test_a_damaged_crc_of_a_length_is_gone_over_and_a_damaged_length_is_the_end(self, five):
        size = five.stat().st_size // 5
        self.damage(five, size + 9)  # in the length's CRC
        summary = inspect_file(five, verify=True)
        assert [(d.record, d.byte_offset, d.reason) for d in summary.damage] == [
            (1, size, "the length of record 1 is damaged (CRC)")
        ]
        assert summary.n_records == 4
        self.damage(five, 2 * size + 1)  # in the length
        summary = inspect_file(five, verify=True)
        assert [d.record for d in summary.damage] == [1, 2] and summary.n_records == 1

    def test_a_cut_record_and_one_that_is_no_example(self, tmp_path):
        path = write(tmp_path / "a.tfrecord", foundation(0))
        with open(path, "ab") as file:
            write_record(file, b"\xff\xff")
            write_record(file, encode_example(foundation(1)))
        path.write_bytes(path.read_bytes()[:-1])
        summary = inspect_file(path, verify=True)
        assert [(d.record, d.reason) for d in summary.damage] == [
            (1, "the record is not a serialized tf.train.Example"),
            (2, "cut off inside record 2"),
        ]

    def test_every_damaged_byte_is_found_as_tensorflow_finds_it(self, five):
        tf = pytest.importorskip("tensorflow")
        size = five.stat().st_size // 5
        for place in (0, 8, 12, 500, size - 1, 2 * size + 3, 4 * size + 20):
            self.damage(five, place)
            with pytest.raises(tf.errors.DataLossError):
                list(tf.data.TFRecordDataset(str(five)))
            try:
                assert inspect_file(five, verify=True).damage[0].record == place // size
            except RecordError as error:
                assert place < 8, error  # a file that does not begin as one
            self.damage(five, place)

    def test_a_file_compressed_with_gzip_says_so(self, tmp_path):
        import gzip

        path = tmp_path / "a.tfrecord"
        path.write_bytes(gzip.compress(b"x" * 100))
        with pytest.raises(RecordError, match="compressed with gzip; decompress it first"):
            inspect_file(path)


class TestJson:
    """`--json`: one object a line, the same keys in each, nothing else on stdout."""

    def answers(self, capsys, *flags):
        status = main(["--json", *map(str, flags)])
        return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def test_one_object_for_each_file_whatever_it_is(self, tmp_path, capsys):
        good = write(tmp_path / "a.tfrecord", foundation(1), foundation(2))
        (tmp_path / "b.tfrecord").write_text("text")
        data = bytearray(good.read_bytes())
        data[50] ^= 1
        (tmp_path / "c.tfrecord").write_bytes(data)
        status, found = self.answers(capsys, "--verify", tmp_path, tmp_path / "none")
        assert status == 1
        assert [a["status"] for a in found] == ["whole", "unreadable", "damaged", "unreadable"]
        assert all(set(a) == set(found[0]) for a in found)
        whole, text, damaged, none = found
        assert whole["path"] == str(good) and whole["n_records"] == 2 and whole["form"] == "CXR Foundation vectors"
        assert whole["keys"]["embedding"]["lengths"] == [1376] and whole["disagreements"] == []
        assert text["error"].startswith("not a TFRecord file") and none["error"] == "No such file or directory"
        assert damaged["damaged"] == [{"record": 0, "byte_offset": 0, "reason": "record 0 is damaged (CRC)"}]

    def test_whole_files_end_well(self, our_shard, capsys):
        status, (answer,) = self.answers(capsys, our_shard)
        assert status == 0 and answer["keys"]["image"]["types"] == ["bytes"] and answer["n_records"] == 25

    def test_numbers_that_json_does_not_know(self, tmp_path, capsys):
        path = write(tmp_path / "a.tfrecord", {"x": np.array([np.nan, np.inf]), "y": np.nan})
        status, (answer,) = self.answers(capsys, path)
        assert status == 0 and answer["keys"]["x"]["n_nonfinite"] == 1


class TestFolders:
    """A folder stands for its shards; what should be there and is not, is named."""

    def test_our_folder_is_whole(self, our_shard, capsys):
        assert main(["--json", str(our_shard.parent)]) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [a["n_records"] for a in found] == [5, 5, 25, 5]  # calibration, test, train, validation

    def test_a_missing_shard_and_a_half_one(self, our_shard, capsys):
        folder = our_shard.parent
        (folder / "biascxr_generic-test.tfrecord-00000-of-00001").unlink()
        half = folder / "biascxr_generic-validation.tfrecord-00000-of-00001"
        with open(half, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        half.write_bytes(half.read_bytes()[: length + 16])  # the first record, whole
        assert main([str(folder)]) == 1
        out, err = capsys.readouterr()
        assert "biascxr_generic-test.tfrecord-00000-of-00001: missing shard (dataset_info.json says 5 records)" in err
        assert "not a whole shard: holds 1 of 5 records (dataset_info.json)" in out
        assert main([str(half)]) == 1 and main([str(our_shard)]) == 0

    def test_a_damaged_record_is_not_held(self, our_shard, capsys):
        shard = our_shard.parent / "biascxr_generic-validation.tfrecord-00000-of-00001"
        data = bytearray(shard.read_bytes())
        data[40] ^= 1  # in the first record
        shard.write_bytes(data)
        assert main(["--verify", str(shard)]) == 1
        assert "not a whole shard: holds 4 and 1 damaged of 5 records (dataset_info.json)" in capsys.readouterr().out
        shard.write_bytes(data[:-1])  # the last one is cut off too
        assert main(["--verify", "--json", str(shard)]) == 1
        answer = json.loads(capsys.readouterr().out)
        assert (answer["n_records"], len(answer["damaged"])) == (3, 2)
        assert answer["shortfall"] == "holds 3 and 2 damaged of 5 records (dataset_info.json)"
        length = int.from_bytes(data[:8], "little")
        shard.write_bytes(data[: length + 30])  # four are lost: of the second only the beginning is there
        summary = inspect_file(shard, verify=True)
        assert summary.shortfall == "holds 0 and 2 damaged of 5 records (dataset_info.json)"

    def test_tensorflow_datasets_itself_finds_our_expectation_right(self, our_shard):
        tfds = pytest.importorskip("tensorflow_datasets")
        from biascxr.records.shard_files import expected_shards

        builder = tfds.builder_from_directory(str(our_shard.parent))
        theirs = {
            str(path): length
            for split in builder.info.splits.values()
            for path, length in zip(split.filepaths, split.shard_lengths, strict=True)
        }
        assert {str(path): n for path, n in expected_shards(our_shard.parent).items()} == theirs

    def test_all_shards_gone(self, our_shard, capsys):
        for path in our_shard.parent.glob("*.tfrecord-*"):
            path.unlink()
        assert main([str(our_shard.parent)]) == 1
        assert capsys.readouterr().err.count("missing shard") == 4

    def test_shards_without_a_description_are_missed_by_their_siblings(self, tmp_path, capsys):
        for k in (0, 3):
            write(tmp_path / "deep" / f"a-0000{k}-of-00004.tfrecord", foundation(k))
        assert main(["--json", str(tmp_path)]) == 1
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [a["status"] for a in found] == ["whole", "unreadable", "unreadable", "whole"]

    def test_a_description_does_not_lead_out_of_its_folder(self, tmp_path):
        from biascxr.records.shard_files import expected_shards

        split = {"name": "x", "shardLengths": ["1"], "filepathTemplate": "../../{DATASET}/secret"}
        (tmp_path / "dataset_info.json").write_text(json.dumps({"name": "a", "splits": [split]}))
        assert list(expected_shards(tmp_path)) == [tmp_path / "secret"]

    @pytest.mark.parametrize("content", ["{", "[1]", '{"splits": 3}', '{"splits": [{"shardLengths": ["x"]}]}'])
    def test_a_description_that_is_none_is_an_error(self, tmp_path, content, capsys):
        write(tmp_path / "a.tfrecord", foundation(1))
        (tmp_path / "dataset_info.json").write_text(content)
        assert main([str(tmp_path)]) == 1
        assert "cannot be read as a description of shards" in capsys.readouterr().err

    def test_only_tfrecords_are_taken(self, tmp_path, capsys):
        write(tmp_path / "p10" / "a.tfrecord", foundation(1))
        for name in ("a.tfrecord.json", "a.tfrecord.tmp", "b.vectors.npy", "LICENSE.txt"):
            (tmp_path / name).write_text("x")
        assert main(["--json", str(tmp_path)]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1


def test_our_records_away_from_their_folder_are_known_by_their_keys(our_shard, tmp_path):
    alone = tmp_path / "alone.tfrecord"
    alone.write_bytes(our_shard.read_bytes())
    summary = inspect_file(alone)
    assert summary.form.startswith("biascxr records") and summary.disagreements == []


def test_sharded_cxr_foundation_maps_and_its_input_images_are_known(tmp_path, make_image):
    maps = write(tmp_path / "a.tfrecord", foundation(1, 88064), foundation(2, 88064))
    assert inspect_file(maps).disagreements == []
    mixed = write(tmp_path / "b.tfrecord", foundation(1), foundation(2, 88064))
    assert inspect_file(mixed).disagreements == ["embedding: expected length 1376 or 88064, found 1376 to 88064"]
    image = {"image/encoded": encode(make_image(0), "png"), "image/format": "png", "image/id": "a.png"}
    summary = inspect_file(write(tmp_path / "c.tfrecord", image))
    assert summary.form == "CXR Foundation input images" and summary.disagreements == []


def test_as_a_command_it_answers_and_loads_no_tensorflow(tmp_path):
    path = write(tmp_path / "a.tfrecord", foundation(1))
    code = (
        "import sys; from biascxr.inspect_tfrecord import main; status = main(sys.argv[1:]); "
        "sys.exit(status or 3 * ('tensorflow' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, "-m", "biascxr.inspect_tfrecord", str(path)], capture_output=True, text=True)
    assert done.returncode == 0
    assert "CXR Foundation vectors" in done.stdout


class TestNobodyReads:
    """`biascxr inspect ... | head -1`: once nobody reads, the command ends and says nothing."""

    def status(self, *command, **how):
        """Runs a command whose output goes into a pipe that nobody reads."""
        unread, end = os.pipe()
        os.close(unread)
        try:
            done = subprocess.run([sys.executable, *map(str, command)], stdout=end, text=True, **how)
        finally:
            os.close(end)
        return done.returncode, done.stderr

    @pytest.mark.parametrize(
        "command", [["-m", "biascxr.cli", "inspect"], ["-m", "biascxr.inspect_tfrecord"]], ids=["verb", "module"]
    )
    @pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
    def test_the_command_ends_quietly(self, tmp_path, command, unbuffered):
        path = write(tmp_path / "a.tfrecord", foundation(1))
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        for flags in (["--json"], []):
            told = self.status(*command, *flags, path, path, stderr=subprocess.PIPE, env=environment)
            assert told == (141, "")
        told = self.status(*command, path, stderr=subprocess.STDOUT, env=environment)
        assert told == (141, None)

    @pytest.mark.parametrize("verb", [["--help"], ["inspect", "--help"], ["phantom", "--help"]], ids=" ".join)
    def test_so_do_the_other_verbs(self, verb):
        status, said = self.status("-m", "biascxr.cli", *verb, stderr=subprocess.PIPE)
        assert said == "" and status in (0, 1, 141)  # argparse and rich, which show some of the help, have ends of their own

    def test_a_closed_output_is_no_error(self, tmp_path):
        path = write(tmp_path / "a.tfrecord", foundation(1))
        shell = f'"{sys.executable}" -m biascxr.inspect_tfrecord "{path}" >&-'
        done = subprocess.run(shell, shell=True, stderr=subprocess.PIPE, text=True)
        assert (done.returncode, done.stderr) == (0, "")

    def test_another_broken_pipe_stays_an_error(self):
        code = (
            "from biascxr.errors import ends_with_its_reader\n"
            "@ends_with_its_reader\n"
            "def command(): raise BrokenPipeError('of a connection')\n"
            "command()"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 1 and "BrokenPipeError: of a connection" in done.stderr

    def test_so_it_does_where_the_output_has_no_descriptor(self):
        @ends_with_its_reader
        def command():
            raise BrokenPipeError("of a connection")

        with contextlib.redirect_stdout(io.StringIO()), pytest.raises(BrokenPipeError, match="of a connection"):
            command()
