"""The paper's tables and its figure of samples, remade at any budget: plan, units of work, results."""
