from lbproxy.control.pool_series import SAMPLES, PoolSeries, Sample, Totals


def test_a_sample_is_a_rate_and_the_first_one_is_zero():
    series = PoolSeries()
    series.add({"web": Totals(1000, 10)}, 5.0)
    series.add({"web": Totals(1050, 15, 0.25)}, 5.0)
    assert series.of("web") == [Sample(0.0, 0.0), Sample(10.0, 1.0, 0.25)]


def test_a_total_that_begins_anew_is_no_negative_rate():
    series = PoolSeries()
    series.add({"web": Totals(1000, 10)}, 5.0)
    series.add({"web": Totals(5, 0)}, 5.0)
    assert series.of("web")[-1] == Sample(0.0, 0.0)


def test_five_minutes_are_kept_and_a_pool_that_is_gone_is_forgotten():
    series = PoolSeries()
    for number in range(SAMPLES + 5):
        series.add({"web": Totals(number, 0), "api": Totals(0, 0)}, 1.0)
    assert len(series.of("web")) == SAMPLES
    series.add({"web": Totals(0, 0)}, 1.0)
    assert series.of("api") == []
    assert series.of("never") == []
