"""The document of an upgrade: it comes back as it was, and another version may know more or fewer fields."""

import json
from dataclasses import fields

from control.handed_sample import document
from lbproxy.control.handed_on import Document, HandedMember
from lbproxy.control.plain import from_plain, plain


def test_the_document_comes_back_as_it_was():
    sample = document()
    assert from_plain(Document, json.loads(json.dumps(plain(sample)))) == sample


def test_a_field_of_a_later_version_is_passed_over_and_a_missing_one_has_its_default():
    values = json.loads(json.dumps(plain(document())))
    values["of a later version"] = 1
    member = values["fleet"]["pools"][0]["members"][0]
    del member["drain"]
    member["colour"] = "red"
    taken = from_plain(Document, values)
    (found,) = taken.fleet.pools[0].members
    assert found.drain is None
    assert {field.name for field in fields(HandedMember)} >= {"slot", "runner"}
