from training.reproduce.published import published
from training.reproduce.table1 import Table1
from training.reproduce.table2 import Table2


def test_every_row_of_the_paper_has_its_mean() -> None:
    means = {row.name: published(*row.paper).get("mean") for row in Table1.all_rows}

    assert len(means) == 10
    assert None not in means.values()
    assert (means["cellgan-none"], means["masan-color"]) == (371.34, 50.03)
    assert [published(*row.paper).get("mean") for row in Table2.all_rows if row.paper] == [
        371.34,
        53.08,
        50.42,
        50.03,
    ]


def test_what_the_paper_does_not_give_is_absent() -> None:
    assert published("table3", "resnet34", "ours") == {}
    assert published("table3", "cnn", "real") == {}
    assert "sd" not in published("table3", "resnet34", "masan")
    assert published("table3", "resnext50", "masan") == {"accuracy": 94.0, "sd": 2.25}


def test_equal_rows_of_two_tables_agree() -> None:
    assert published("table1", "color", "cellgan") == published("table2", "color")
    assert published("table1", "color", "masan") == published("table2", "san")
