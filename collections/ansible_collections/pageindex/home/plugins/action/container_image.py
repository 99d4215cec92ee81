"""Action of pageindex.home.container_image: names the image by its content, follows its build."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail

from ansible_collections.pageindex.home.plugins.module_utils import image_content
from ansible_collections.pageindex.home.plugins.plugin_utils.following import FollowingAction

TASK_OPTIONS = {
    "repository",
    "base_image",
    "context",
    "context_directory",
    "exclude",
    "build_args",
    "labels",
    "labels_from",
}


class ActionModule(FollowingAction):
    """Computes the tag on the controller; sends the files only where the image is missing."""

    module = "pageindex.home.container_image"
    start_only = ("context",)

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action."""
        super().run(tmp, task_vars)
        given = dict(self._task.args)
        unknown = sorted(set(given) - TASK_OPTIONS)
        if unknown:
            raise AnsibleActionFail(
                f"container_image: unknown option {', '.join(unknown)}; expected some of "
                f"{', '.join(sorted(TASK_OPTIONS))}"
            )
        repository = given.get("repository")
        if not repository:
            raise AnsibleActionFail("container_image: repository is missing")
        context = self._context(given)
        base_image = given.get("base_image") or ""
        build_args = {key: str(value) for key, value in (given.get("build_args") or {}).items()}
        labels = {key: str(value) for key, value in (given.get("labels") or {}).items()}
        labels_from = given.get("labels_from") or None
        tag = image_content.content_hash(context, base_image, build_args, labels, labels_from)
        arguments = {
            "image": f"{repository}:{tag}",
            "base_image": base_image,
            "build_args": build_args,
            "labels": labels,
            "labels_from": labels_from,
        }
        subject = f"image {repository}:{tag}"
        found = self.follow({**arguments, "look_only": True}, subject, task_vars or {})
        if not found.pop("missing", False) or found.get("failed"):
            return found
        return self.follow({**arguments, "context": context}, subject, task_vars or {})

    @staticmethod
    def _context(given: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The files of the build, from the task's text or from a directory of the controller."""
        if bool(given.get("context")) == bool(given.get("context_directory")):
            raise AnsibleActionFail("container_image: expected exactly one of context and context_directory")
        if given.get("context"):
            return image_content.context_from_texts({name: str(text) for name, text in given["context"].items()})
        try:
            return image_content.context_from_directory(given["context_directory"], given.get("exclude") or ())
        except (OSError, ValueError) as error:
            raise AnsibleActionFail(f"container_image: {error}") from error
