"""Print what hidden quotas waste: `python -m benchmarks.quotas`."""

from __future__ import annotations

from collections.abc import Callable

from .simulation import FixedWindow, Quota, SlidingWindow, TokenBucket, simulate

QUOTAS: dict[str, Callable[[], Quota]] = {
    "10/s, bursts of 10": lambda: TokenBucket(10, 10),
    "100/s, bursts of 100": lambda: TokenBucket(100, 100),
    "2/s, bursts of 10": lambda: TokenBucket(2, 10),
    "25 in each second": lambda: FixedWindow(25, 1),
    "100 in each 10 s": lambda: FixedWindow(100, 10),
    "600 in each minute": lambda: FixedWindow(600, 60),
    "60 in each minute": lambda: FixedWindow(60, 60),
    "10 in each minute": lambda: FixedWindow(10, 60),
    "1000 in each 10 minutes": lambda: FixedWindow(1000, 600),
    "100 in any minute": lambda: SlidingWindow(100, 60),
}

DEMANDS = (1.1, 2.0, 10.0)
"""Of the quota."""

SECONDS = 3600


def main() -> None:
    print(f"{'quota':<26}{'demand':>8}{'wasted':>9}{'used':>7}{'without control':>17}")
    for name, build in QUOTAS.items():
        for factor in DEMANDS:
            demand = factor * build().per_second
            result = simulate(build(), demand, SECONDS)
            bare = simulate(build(), demand, SECONDS / 6, is_adaptive=False)
            print(
                f"{name:<26}{factor:>7g}x{result.waste:>9.1%}{result.used:>7.0%}{bare.waste:>17.1%}"
            )


if __name__ == "__main__":
    main()
