"""Pure decisions: functions of their arguments, with time passed in."""
