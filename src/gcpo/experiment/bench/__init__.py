"""``gcpo bench``: recipes x tasks x models x learning rates x seeds, paired.

plan.py      a TOML file -> what is compared, and the cells: one ``gcpo train`` each
run.py       cells -> run directories, several at a time, resumable
curves.py    run directory -> accuracy against steps, samples, tokens and seconds
tuning.py    curves of the tuning seeds -> each recipe's own learning rate
summary.py   curves of the other seeds -> tables with intervals (estimators.py)
bench.py     all of it in order
"""
