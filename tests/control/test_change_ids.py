"""The ids of changes."""

from lbproxy.control.change_ids import ChangeIds


def test_each_letter_counts_for_itself():
    ids = ChangeIds()
    assert [ids.next("r"), ids.next("r"), ids.next("d")] == ["r1", "r2", "d1"]


def test_ids_go_on_behind_those_of_an_earlier_lbproxy_whatever_its_history_says():
    ids = ChangeIds()
    ids.go_on_behind(["r9", "r12", "d3", "", "r", "rx", "r-1", "r1.5", "r" + "9" * 30, "r٣"])
    assert [ids.next("r"), ids.next("d")] == ["r13", "d4"]
