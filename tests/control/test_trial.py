"""The trial from inside: every module, the document, the configuration, a worker that applies the table."""

import os

import pytest
import trio

from control.handed_sample import document
from lbproxy.control import trial
from lbproxy.control.document import DocumentRefused, descriptors, write_document
from lbproxy.control.trial import Proof, import_everything, try_to_take_over


def test_every_module_can_be_imported():
    import_everything()


def test_an_upgrade_does_not_need_the_libraries_of_an_extra(monkeypatch):
    imported = []
    monkeypatch.setattr(trial.importlib, "import_module", imported.append)
    import_everything()
    assert "lbproxy.acme.issue" in imported
    imported.clear()
    monkeypatch.setattr(trial, "find_spec", lambda name: None)
    import_everything()
    assert not any(name.startswith("lbproxy.acme.") for name in imported)
    assert "lbproxy.control.certificate_orders" in imported


@pytest.fixture
def opened():
    """Every descriptor that the sample names is open."""
    fd, made = os.open(os.devnull, os.O_RDONLY), []
    for number in set(descriptors(document())):
        try:
            os.fstat(number)
        except OSError:
            made.append(os.dup2(fd, number))
    yield made
    for number in made:
        os.close(number)
    os.close(fd)


def test_a_worker_applies_the_table_and_the_proof_says_what_is_adopted(opened):
    fd = write_document(document())
    asked = []
    proof = try_to_take_over(fd, lambda: asked.append(1))
    assert (proof.backends, proof.workers, proof.listeners) == (1, 1, 1)
    assert isinstance(proof, Proof)
    assert asked, "the configuration is read"
    os.close(fd)


def test_a_descriptor_that_is_missing_is_said(opened):
    os.close(opened.pop())
    fd = write_document(document())
    with pytest.raises(DocumentRefused, match="is not open"):
        try_to_take_over(fd, lambda: None)
    os.close(fd)


def test_a_worker_that_ends_without_a_word_is_a_failure(monkeypatch):
    monkeypatch.setattr(trial, "worker_command", lambda identity: ("/bin/true",))
    with pytest.raises(DocumentRefused, match="does not apply the table"):
        trio.run(trial._have_applied, document())
