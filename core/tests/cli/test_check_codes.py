"""`turnlane plugins check`: what it refuses of a provider that cannot be told anything."""


def test_settings_of_a_provider_that_has_none_are_refused_and_not_repeated(run) -> None:
    finished = run("plugins", "check", "turnlane-generic-turn", "--set", "region=planted-value")
    assert finished.code == 2
    assert "stage=policy_validate code=unknown_setting: " in finished.err
    assert "generic-turn" in finished.err
    assert "planted-value" not in finished.err
    assert finished.out == ""
