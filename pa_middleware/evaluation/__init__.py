"""Does the signal work on your agent? Score stored runs once, then ask every question of the stored pass.

trajectories = read_trajectories(["runs.json"])     # whoever wrote them
score_trajectories(...)                             # one line a run, every token's log-prob under both models
evaluate_tts / evaluate_uq / evaluate_fa            # the paper's three applications, beside their baselines
"""
