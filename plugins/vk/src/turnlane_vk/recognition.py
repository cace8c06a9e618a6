"""Recognition: which stage a request of a page is, by its URL and its form."""

from collections.abc import Mapping

from turnlane_vk.browser import Watch

LOGIN = "vk_login_anonym_token"
ANONYM_TOKEN = "vk_calls_get_anonymous_token"  # noqa: S105 a stage
BROWSER_LOGIN = "vk_browser_login_anonym_token_messages"
PREVIEW = "vk_calls_get_call_preview"
OK_LOGIN = "ok_anonym_login"
JOIN = "ok_join_conversation_by_link"
START = "ok_start_conversation_create_join_link"
"""The ids of the stages, as errors, spans and artifacts name them; endpoints have the same."""

_FORMS: dict[str, dict[str, str]] = {
    OK_LOGIN: {"method": "auth.anonymLogin", "format": "JSON"},
    JOIN: {"method": "vchat.joinConversationByLink", "format": "JSON", "isVideo": "false"},
    START: {"method": "vchat.startConversation", "format": "JSON", "createJoinLink": "true"},
}
"""The fields by which the stages of the shared endpoint are told apart."""


def recognise_untrusted(watch: Watch, method: str, url: str, form: Mapping[str, str]) -> str | None:
    """Return the stage of a request, or None for one that is no business of ours."""
    if method != "POST":
        return None
    for stage, beginning in watch.endpoints.items():
        rest = url.removeprefix(beginning)
        at_endpoint = url.startswith(beginning) and (not rest or rest[0] in "?&#/")
        if at_endpoint and _has_form(watch, stage, form):
            return stage
    return None


def _has_form(watch: Watch, stage: str, form: Mapping[str, str]) -> bool:
    wanted = _FORMS.get(stage)
    if wanted is None:
        return True
    if form.get("application_key") != watch.application_key:
        return False
    if any(form.get(name) != value for name, value in wanted.items()):
        return False
    if stage == JOIN:
        link = form.get("joinLink", "")
        spoken = form.get("protocolVersion") == watch.protocol_version
        return spoken and any(link == known.reveal() for known in watch.join_links)
    return stage != START or bool(form.get("session_key"))
