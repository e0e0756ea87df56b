"""What makes them a team: tasks, state, nodes, graph, reports."""
