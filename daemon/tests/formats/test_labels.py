"""Label files in the forms that people keep them in."""

from __future__ import annotations

import json

import pytest

from edgeaid.formats.labels import parse


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat\ndog\n", ("cat", "dog")),
        ("\ufeffcat\r\ndog", ("cat", "dog")),
        ("0  person\n1  bicycle\n3  motorcycle\n", ("person", "bicycle", "", "motorcycle")),
        ("0: person\n1: bicycle", ("person", "bicycle")),
        ("0,person\n1,bicycle", ("person", "bicycle")),
        ("id,name\n0,person\n1,bicycle", ("person", "bicycle")),
        ("0\tperson\n2\tcar", ("person", "", "car")),
        ("0 Class 1\n1 Class 2\n", ("Class 1", "Class 2")),
        ("???\nperson\ncar", ("???", "person", "car")),
        ('item {\n  id: 1\n  name: "/m/01g317"\n  display_name: "person"\n}\nitem { name: \'car\' id: 3 }',
         ("", "person", "", "car")),
        ('["cat", "dog"]', ("cat", "dog")),
        ('{"0": "cat", "2": "dog"}', ("cat", "", "dog")),
        ('{"cat": 0, "dog": 1}', ("cat", "dog")),
        ("{'author': 'Ultralytics', 'names': {0: 'cat', 1: 'dog'}}", ("cat", "dog")),
        ("0\n1\n2\n", ("0", "1", "2")),
        ("3 of a kind\n1 pair", ("3 of a kind", "1 pair")),
        ("0. cat\n1. dog", ("cat", "dog")),
        ("0) cat\n2) dog", ("cat", "", "dog")),
        ("0 - cat\n1 - dog", ("cat", "dog")),
        ("0 person\n1\n2 car\n3 bus", ("person", "", "car", "bus")),
        ("# made by hand\n0 cat\n1 dog", ("cat", "dog")),
        ("cat,0\ndog,1", ("cat", "dog")),
        ("dog: 1\ncat: 0", ("cat", "dog")),
        ("class 0\nclass 1", ("class 0", "class 1")),
        ('"cat",\n"dog",', ("cat", "dog")),
        ('"0","cat, domestic"\n"1","dog"', ("cat, domestic", "dog")),
        ("index,mid,display_name\n0,/m/09x0r,Speech\n1,/m/0ytgt,\"Child speech, kid speaking\"",
         ("Speech", "Child speech, kid speaking")),
        ("ClassId,SignName\n0,Stop\n1,Yield", ("Stop", "Yield")),
        ("id;name\n-1;none\n0;cat\n2;dog", ("cat", "", "dog")),
        ('item: {\n id: 1 name: "a}b" keypoints { id: 7 label: "nose" } }\nitem < name: \'potter\\\'s wheel\' id: 2 >',
         ("", "a}b", "potter's wheel")),
        ('item { id: 0 name: "caf\\303\\251" }', ("caf\u00e9",)),
        ('{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}', ("tench", "goldfish")),
        ('[{"supercategory": "person", "id": 1, "name": "person"}, {"id": 3, "name": "car"}]',
         ("", "person", "", "car")),
        ('{"categories": [{"id": 1, "name": "person"}]}', ("", "person")),
        ('{"id2label": {"0": "cat", "1": "dog"}, "model_type": "vit"}', ("cat", "dog")),
        ('{"labels": ["cat", null, "dog"]}', ("cat", "", "dog")),
        ("path: x\ntrain: y\n\nnames:\n  0: person\n  # two wheels\n  1: 'bicycle'\n\nnc: 2", ("person", "bicycle")),
        ("nc: 2\nnames: [person, 'bicycle']\n", ("person", "bicycle")),
        ("names:\n- person\n- traffic light # red\n", ("person", "traffic light")),
        ("names: {0: person, 2: car}", ("person", "", "car")),
        ("item\nbox", ("item", "box")),
        ("0: 'tench, Tinca tinca',\n1: 'goldfish',", ("tench, Tinca tinca", "goldfish")),
        ("n01440764 tench, Tinca tinca\nn01443537 goldfish", ("tench, Tinca tinca", "goldfish")),
        ("n01440764 tench\nnone", ("n01440764 tench", "none")),
        ('{"id": 0, "name": "cat"}\n{"id": 2, "name": "dog"}\n', ("cat", "", "dog")),
        ("export const LABELS = ['cat', 'dog'];\n", ("cat", "dog")),
        ("CLASSES = (\n  'cat',\n  'dog',\n)", ("cat", "dog")),
        ("labels = {0: 'cat', 1: 'dog'}", ("cat", "dog")),
        ("0-person\n1-traffic-light", ("person", "traffic-light")),
        ("3-wheeler\n4-wheeler", ("3-wheeler", "4-wheeler")),
        ("(0) person\n(1) car", ("person", "car")),
        ("[0] person\n[1] car", ("person", "car")),
        ("[]", ()),
        ("", ()),
        ("{ not json", ("{ not json",)),
    ],
)  # fmt: skip
def test_every_form_gives_the_names_by_class_number(text: str, names: tuple[str, ...]) -> None:
    assert parse(text.encode()).names == names


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_names_survive_the_encodings_that_editors_write(encoding: str) -> None:
    assert parse("Käfer\nVögel\n".encode(encoding)).names == ("Käfer", "Vögel")


@pytest.mark.parametrize(
    "text", ["<names><name>cat</name></names>", '{"objects": [{"title": 7}]}', '{\n"name": "Classifier"\n}']
)
def test_structured_text_of_an_unknown_kind_is_said_to_be_so(text: str) -> None:
    assert any("JSON or XML of a kind that is not known" in note for note in parse(text).notes)


def test_an_entry_for_nothing_has_more_names_than_one() -> None:
    assert parse("unlabeled\ncat\ndog", 2).names == ("cat", "dog")


def test_windows_names_are_read_and_said_to_be_so() -> None:
    labels = parse("Käfer\nVögel\n".encode("cp1252"))
    assert labels.names == ("Käfer", "Vögel")
    assert "Windows-1252" in labels.notes[0]


def test_remarks_below_an_empty_line_are_no_classes() -> None:
    labels = parse("background\ncat\n\nremark about 255\n")
    assert labels.names == ("background", "cat")
    assert "empty line" in labels.notes[0]


def test_empty_lines_between_names_are_left_out_when_the_scores_say_so() -> None:
    labels = parse("cat\n\ndog\n\nbird\n", 3)
    assert (labels.names, labels.notes) == (("cat", "dog", "bird"), ())


def test_a_missing_background_is_added_and_said() -> None:
    labels = parse("\n".join(f"class-{n}" for n in range(1000)), 1001)
    assert (len(labels.names), labels.names[0], labels.names[1]) == (1001, "background", "class-0")
    assert "class 1 is called 'class-0'" in labels.notes[0]


def test_a_background_too_many_is_left_out_and_said() -> None:
    labels = parse("background\ncat\ndog", 2)
    assert labels.names == ("cat", "dog")
    assert "left out" in labels.notes[0]


def test_numbers_that_begin_names_stay_with_them() -> None:
    assert parse("1 euro\n2 euro\n5 euro\n", 3).names == ("1 euro", "2 euro", "5 euro")


def test_numbers_from_one_are_moved_to_begin_at_zero_when_the_scores_say_so() -> None:
    labels = parse("1: cat\n2: dog\n", 2)
    assert labels.names == ("cat", "dog")
    assert "numbered from 1" in labels.notes[0]


def test_one_line_of_names_is_cut_at_its_commas_when_the_scores_say_so() -> None:
    assert parse("cat, dog,bird\n", 3).names == ("cat", "dog", "bird")
    assert parse("tench, Tinca tinca\n").names == ("tench, Tinca tinca",)


def test_a_title_and_remarks_are_left_out_when_the_scores_say_so() -> None:
    assert parse("labels\ncat\ndog\n", 2).names == ("cat", "dog")
    assert parse("# of an old camera\ncat\ndog\n", 2).names == ("cat", "dog")
    assert parse("labels\ncat\ndog\n", 3).names == ("labels", "cat", "dog")


def test_labels_that_do_not_fit_are_a_warning_with_examples() -> None:
    labels = parse("cat\ndog\n", 10)
    assert "class 0 would be called 'cat' and class 1 'dog'" in labels.notes[0]


@pytest.mark.parametrize("text", ["[" * 100000, "{" * 100000, json.dumps({"a": [1]}), "item {" * 1000, "9999999 x\n"])
def test_hostile_files_end_in_some_names(text: str) -> None:
    assert len(parse(text, 10).names) <= 1 << 17
