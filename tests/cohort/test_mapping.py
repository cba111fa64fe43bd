"""Any table by a mapping of columns: what it says is read, and what it gets wrong is named."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from biascxr.cohort import build_cohort, find_layout
from biascxr.cohort.mapping import Cells, LabelList, read_mapping
from biascxr.config import CohortConfig
from biascxr.errors import InputError

PADCHEST = """\
image_id: ImageID
patient_id: PatientID
study_id: StudyID
path: "{ImageDir}/{ImageID}"
view: {column: Projection, values: {PA: PA, AP: AP, AP_horizontal: AP}, other: not frontal}
sex: PatientSex_DICOM
age: {birth_year: PatientBirth, study_date: StudyDate_DICOM}
attributes: {modality: {column: Modality_DICOM, constant: false}}
labels:
  column: Labels
  names: {No Finding: normal, Cardiomegaly: cardiomegaly, Effusion: [pleural effusion, loculated effusion]}
"""
PADCHEST_ROWS = pd.DataFrame(
    {
        "ImageID": ["a.png", "b.png", "c.png", "d.png"],
        "ImageDir": ["0", "0", "54", "54"],
        "StudyDate_DICOM": ["20140915", "20140915", "2010-01-02", ""],
        "StudyID": ["s1", "s1", "s2", "s3"],
        "PatientID": ["p1", "p1", "p2", "p3"],
        "PatientBirth": ["1930.0", "1930", "1951", "1960"],
        "PatientSex_DICOM": ["M", "M", "F", "O"],
        "Modality_DICOM": ["CR", "DX", "DX", "None"],
        "Projection": ["PA", "L", "AP_horizontal", "COSTAL"],
        "Labels": ["['normal']", "['cardiomegaly', ' loculated effusion', 'loc right']", "['pleural effusion']", ""],
    }
)
PLAIN = {"image_id": "i", "patient_id": "p", "path": "f", "labels": {"Edema": "e"}}
ROWS = pd.DataFrame({"i": ["1", "2"], "p": ["1", "2"], "f": ["a.png", "b.png"], "e": ["1", "0"], "x": ["Yes", "no"]})


@pytest.fixture
def parse(tmp_path):
    """Function `(frame, mapping) -> (layout, ParsedTable)`; the mapping is YAML text or a tree."""

    def run(frame, mapping):
        text = mapping if isinstance(mapping, str) else yaml.safe_dump(mapping)
        (tmp_path / "map.yaml").write_text(text, encoding="utf-8")
        frame.to_csv(tmp_path / "table.csv", index=False)
        layout, source = find_layout(tmp_path / "table.csv", None, CohortConfig(mapping=tmp_path / "map.yaml"))
        return layout, layout.parse(source)

    return run


class TestPadChest:
    def test_is_read_with_a_small_mapping(self, parse):
        layout, parsed = parse(PADCHEST_ROWS, PADCHEST)
        table = parsed.table
        assert layout.name == "generic"
        assert table["path"].tolist() == ["0/a.png", "0/b.png", "54/c.png", "54/d.png"]
        assert table["study_id"].tolist() == ["s1", "s1", "s2", "s3"]
        assert table["view"].tolist() == ["PA", "NOT FRONTAL", "AP", "NOT FRONTAL"]
        assert table["sex"].tolist() == ["M", "M", "F", "unknown"]
        assert table["modality"].tolist() == ["CR", "DX", "DX", "unknown"]
        assert table["age"].tolist()[:3] == [84, 84, 59]
        assert np.isnan(table["age"][3])
        assert layout.attributes == {"sex": True, "age_group": False, "modality": False}
        assert layout.label_names == ("No Finding", "Cardiomegaly", "Effusion")
        assert parsed.labels.iloc[:3].to_numpy().tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
        assert any("one year too high" in note for note in parsed.notes)

    def test_a_blank_list_says_nothing_of_any_finding(self, parse):
        layout, parsed = parse(PADCHEST_ROWS, PADCHEST)
        assert parsed.labels.iloc[3].isna().all()
        assert layout.zero_where_blank == ()

    def test_the_mapping_of_the_documentation_is_one_that_is_read(self, tmp_path):
        import biascxr.cohort.mapping as module

        text = module.__doc__.split("for example:\n")[1].split("\nA text is")[0]
        (tmp_path / "m.yaml").write_text("\n".join(line[4:] for line in text.splitlines()))
        assert set(read_mapping(tmp_path / "m.yaml").labels.names) == {"No Finding", "Cardiomegaly", "Effusion"}

    def test_becomes_a_cohort(self, tmp_path):
        frame = pd.concat([PADCHEST_ROWS.iloc[[0, 2]]] * 20, ignore_index=True)
        frame["ImageID"] = [f"{i}.png" for i in range(40)]
        frame["PatientID"] = [f"p{i}" for i in range(40)]
        frame["Labels"] = ["['normal']", "['cardiomegaly', 'pleural effusion']"] * 18 + ["['loculated effusion']"] * 4
        frame.to_csv(tmp_path / "t.csv", index=False)
        (tmp_path / "m.yaml").write_text(PADCHEST)
        config = CohortConfig(mapping=tmp_path / "m.yaml")
        cohort = build_cohort(tmp_path / "t.csv", None, config, seed=0)
        assert cohort.label_names == ("No Finding", "Cardiomegaly", "Effusion")
        assert {a.name: a.constant for a in cohort.attributes} == {"sex": True, "age_group": False, "modality": False}


class TestLabels:
    def test_texts_are_translated_and_not_guessed(self, parse):
        labels = {"Edema": {"column": "x", "values": {"Yes": "1", "no": "0", "unk": "-1"}}}
        frame = ROWS.assign(x=["Yes", "unk"])
        assert parse(frame, PLAIN | {"labels": labels})[1].labels["Edema"].tolist() == [1, -1]

    def test_yes_and_no_stay_what_the_user_wrote(self, parse):
        text = "image_id: i\npatient_id: p\npath: f\nlabels: {Edema: {column: x, values: {Yes: 1, no: 0}}}\n"
        assert parse(ROWS, text)[1].labels["Edema"].tolist() == [1, 0]

    def test_a_text_without_translation_is_named_with_the_nearest(self, parse):
        labels = {"Edema": {"column": "x", "values": {"Yes": "1", "absent": "0"}}}
        message = r"Unknown value of x \(--mapping, labels.Edema.values\) 'abesnt'. Did you mean 'absent'\?"
        with pytest.raises(InputError, match=message):
            parse(ROWS.assign(x=["Yes", "abesnt"]), PLAIN | {"labels": labels})

    def test_a_translation_into_no_label_is_named(self, parse):
        labels = {"Edema": {"column": "x", "values": {"Yes": "yes", "no": "0"}}}
        with pytest.raises(InputError, match="Label column 'Edema' holds 'yes'"):
            parse(ROWS, PLAIN | {"labels": labels})

    @pytest.mark.parametrize("text", ["['edema'", "edema", "[1, 2]", "{'edema': 1}", "[[" * 5000, "[open('x')]", "[{[]: 1}]"])
    def test_what_is_no_list_is_named(self, parse, text):
        frame = ROWS.assign(e=["['edema']", text])
        with pytest.raises(InputError, match=r"Column e holds .*expected a list such as"):
            parse(frame, PLAIN | {"labels": {"column": "e", "names": ["edema"]}})

    def test_a_finding_that_is_never_listed_is_named_with_the_nearest(self, parse):
        frame = ROWS.assign(e=["edema|effusion", ""])
        with pytest.raises(InputError, match=r"'efusion' is listed in no cell of e. Did you mean 'effusion'\?"):
            parse(frame, PLAIN | {"labels": {"column": "e", "separator": "|", "names": ["edema", "efusion"]}})

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.sets(st.sampled_from(["edema", "pleural effusion", "o'neill's sign", 'a "b"', "nódulo"]))).filter(any))
    def test_every_way_of_writing_a_list_says_the_same(self, lists):
        names = sorted(set().union(*lists))
        of_name = {name: (name,) for name in names}
        expected = [[float(name in one) for name in names] for one in lists]
        for write, separator in ((lambda e: repr(sorted(e)), None), (lambda e: json.dumps(sorted(e)), None)):
            frame = pd.DataFrame({"c": [write(one) for one in lists]})
            assert LabelList("c", of_name, separator).read(frame).to_numpy().tolist() == expected
        frame = pd.DataFrame({"c": [" | ".join(sorted(one)) for one in lists]})
        found = LabelList("c", of_name, "|").read(frame).to_numpy()
        is_said = np.array([len(one) > 0 for one in lists])  # an empty text is a blank
        assert found[is_said].tolist() == [e for e, said in zip(expected, is_said, strict=True) if said]
        assert np.isnan(found[~is_said]).all()


class TestCells:
    @settings(max_examples=60, deadline=None)
    @given(
        st.dictionaries(st.text("abcXYZ0123 ", min_size=1, max_size=5).map(str.strip).filter(bool), st.text("uvw", min_size=1))
    )
    def test_every_listed_text_becomes_what_the_mapping_says(self, values):
        frame = pd.DataFrame({"c": [*values, "", "~"]})
        read = Cells("k", "c", values, other="rest").read(frame)
        assert read.tolist() == [*values.values(), "", "rest"]

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.text("ab/.", max_size=4), st.text("cd", max_size=4)), min_size=1))
    def test_a_template_is_python_s_own_and_blank_where_a_part_is(self, rows):
        frame = pd.DataFrame(rows, columns=["One", "Two col"], dtype=str)
        expected = [f"x{a}-{b}.png" if a and b else "" for a, b in rows]
        assert Cells("path", "x{One}-{Two col}.png").read(frame).tolist() == expected

    def test_a_blank_can_be_given_a_value(self):
        assert Cells("k", "c", {"": "0", "y": "1"}).read(pd.DataFrame({"c": ["", "y"]})).tolist() == ["0", "1"]


class TestMapping:
    def test_without_what_is_optional(self, parse):
        layout, parsed = parse(ROWS, PLAIN)
        assert parsed.table["study_id"].tolist() == parsed.table["image_id"].tolist()
        assert (parsed.table["view"] == "").all()
        assert parsed.table["age"].isna().all()
        assert not {"sex", "split", "race"} & set(parsed.table)
        assert layout.attributes == {}

    def test_constancy_is_declared_or_the_usual(self, parse):
        attributes = {"race": "x", "insurance": "x", "payer": "x", "language": {"column": "x", "constant": "true"}}
        layout, _ = parse(ROWS, PLAIN | {"attributes": attributes})
        assert layout.attributes == {"race": True, "insurance": False, "payer": False, "language": True}

    def test_leaves_other_instances_as_they_were(self, parse):
        layout, _ = parse(ROWS, PLAIN)
        assert layout.label_names == ("Edema",)
        assert len(type(layout)().label_names) == 14

    def test_age_in_years_and_the_split(self, parse):
        frame = ROWS.assign(a=["058Y", "414"], s=["Train", "TEST"])
        table = parse(frame, PLAIN | {"age": "a", "split": "s"})[1].table
        assert table["age"].tolist() == [58, 414]
        assert table["split"].tolist() == ["train", "test"]

    @pytest.mark.parametrize("value", ["15/09/2014", "soon", "98", "201409155"])
    def test_a_date_that_does_not_begin_with_its_year_is_named(self, parse, value):
        frame = ROWS.assign(b="1950", d=value)
        with pytest.raises(InputError, match=r"Column d holds .* expected a year or a date"):
            parse(frame, PLAIN | {"age": {"birth_year": "b", "study_date": "d"}})

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"patient": "p"}, r"Unknown key of the file \(--mapping\) 'patient'. Did you mean 'patient_id'"),
            ({"sex": "Sxe"}, r"Unknown column \(--mapping map.yaml, sex\) 'Sxe'"),
            ({"path": "{folder}/{f}"}, r"Unknown column \(--mapping map.yaml, path\) 'folder'"),
            ({"attributes": {"payer": "y"}}, r"Unknown column \(--mapping map.yaml, attributes.payer\) 'y'"),
            ({"attributes": {"sex": "x"}}, r"attributes.sex: this name is taken"),
            ({"attributes": {"payer": {"column": "x", "constant": "maybe"}}}, "constant must be true or false; got 'maybe'"),
            ({"view": {"column": "x", "vales": {}}}, r"Unknown key of view \(--mapping\) 'vales'. Did you mean 'values'"),
            ({"view": {"column": "x", "other": "AP"}}, "view.other says what the rest becomes, so it needs view.values"),
            ({"view": {"values": {"a": "b"}}}, "view.column must be a text; got None"),
            ({"view": ["x"]}, "view must hold `name: value` lines"),
            ({"age": {"birth_year": "x"}}, "age.study_date must be a text; got None"),
            ({"labels": {}}, "labels must name at least one finding"),
            ({"labels": {"column": "e", "names": []}}, "labels.names must name at least one finding"),
            ({"labels": {"Edema": "ed"}}, r"Unknown column \(--mapping map.yaml, labels\) 'ed'"),
            ({"labels": "e"}, "labels must hold `name: value` lines; got 'e'"),
            ({"sex": {"column": "x", "values": {"a": ["M"]}}}, r"sex.values.a must be a text; got \['M'\]"),
        ],
    )
    def test_each_mistake_is_named(self, parse, change, message):
        with pytest.raises(InputError, match=message):
            parse(ROWS, PLAIN | change)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("image_id: i\n", "lacks patient_id, path, labels"),
            ("", "the file must hold `name: value` lines; got None"),
            ("image_id: [", "is not valid YAML"),
            ("image_id: i\nimage_id: j\n", "the key 'image_id' stands twice"),
            ("? {a: b}\n: c\n", "is not valid YAML"),
            ("!!python/object/apply:os.system [ls]\n", "must hold `name: value` lines"),
        ],
    )
    def test_what_is_no_mapping_is_named(self, parse, text, message):
        with pytest.raises(InputError, match=message):
            parse(ROWS, text)

    def test_a_missing_file_and_a_folder_are_named(self, tmp_path):
        ROWS.to_csv(tmp_path / "t.csv", index=False)
        config = CohortConfig(mapping=tmp_path / "none.yaml")
        layout, source = find_layout(tmp_path / "t.csv", None, config)
        with pytest.raises(InputError, match=r"none\.yaml: No such file"):
            layout.parse(source)
        with pytest.raises(InputError, match="is a folder; name the table"):
            find_layout(tmp_path, None, config)

    def test_a_changed_mapping_changes_the_fingerprint(self, tmp_path):
        ROWS.to_csv(tmp_path / "t.csv", index=False)
        prints = []
        for column in ("e", "x"):
            (tmp_path / "m.yaml").write_text(yaml.safe_dump(PLAIN | {"labels": {"Edema": column}}))
            layout, source = find_layout(tmp_path / "t.csv", None, CohortConfig(mapping=tmp_path / "m.yaml"))
            prints.append(layout.fingerprint(source))
        assert prints[0] != prints[1]
