//! Tabular kernels: tree ensembles, linear models, support vector machines.
