"""Training runs: the step (`module`), the ranks (`strategies`), what goes along, and the run (`run`).

The only part of the package that knows Lightning. `run.fit` and `run.evaluate` do what the command line does;
for an own script around an own model take `AdderClassifier` and the callbacks that you want.
"""
