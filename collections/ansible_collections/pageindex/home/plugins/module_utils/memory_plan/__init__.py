"""The memory plan: what a model needs on which cards, before anything is downloaded.

Plain Python without Ansible, GPU or network. `decide` answers, `remedies` says what would make it fit, `cases`
compares with published engine starts. docs/memory_plan.md has the formula, its sources and its errors.
"""
