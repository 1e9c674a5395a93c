"""Which model runs where: what the planner is asked, its steps, the plan and what is printed of it."""
