"""The steps of ``planner.make_plan``: what is asked, what could run where, what is chosen, and why."""
