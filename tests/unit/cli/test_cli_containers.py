"""Commands against the fake cloud, in this process."""

from __future__ import annotations

import json
import time

import pytest

from askos.cli import rejoin, tailing
from askos.client.errors import ClientError


def test_run_shows_both_streams_and_takes_over_the_exit_code(askos, cloud):
    ran = askos("run", "--name", "job", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (ran.code, ran.out, ran.err) == (3, "out\n", "err\n")
    assert cloud.find("job").status == "Stopped"


def test_run_rm_removes_the_container_after_reading_its_exit_code(askos, cloud):
    ran = askos("run", "--rm", "--name", "job", "busybox", "sh", "-c", "exit 4")
    assert ran.code == 4
    assert cloud.find("job") is None, "it is gone when the command returns"
    assert "auto_remove" not in cloud.bodies[0]
    assert any(line.startswith("DELETE ") for line in cloud.seen)


def test_flags_after_the_image_belong_to_the_command(askos, cloud):
    ran = askos("run", "--rm", "busybox", "echo", "-d", "--rm", "-q", "--help")
    assert ran.out == "-d --rm -q --help\n"


def test_run_sends_what_was_asked_for(askos, cloud, tmp_path, monkeypatch):
    file = tmp_path / "vars"
    file.write_text("# comment\n\nA=from file\nB=b=c\nHERE_ONLY\n")
    monkeypatch.setenv("HERE_ONLY", "yes")
    ran = askos(
        "run", "-d", "--name", "web", "-e", "A=1", "-e", "HERE_ONLY", "-e", "NOT_SET_ANYWHERE",
        "--env-file", str(file), "-w", "/tmp", "-l", "app=web", "-l", "plain", "--cpus", "0.5", "-m", "1g",
        "--hostname", "h1", "--entrypoint", "", "--restart", "on-failure:3", "--pull", "missing", "-t",
        "busybox", "sleep", "5",
    )  # fmt: skip
    assert ran.code == 0
    assert ran.out.strip() == cloud.find("web").uuid
    assert cloud.bodies == [
        {
            "image": "busybox", "name": "web", "command": ["sleep", "5"], "entrypoint": [],
            "environment": {"A": "1", "B": "b=c", "HERE_ONLY": "yes"}, "workdir": "/tmp",
            "labels": {"app": "web", "plain": ""}, "cpu": 0.5, "memory": "1024", "hostname": "h1",
            "restart_policy": {"Name": "on-failure", "MaximumRetryCount": "3"},
            "image_pull_policy": "ifnotpresent", "tty": True,
        }
    ]  # fmt: skip
    assert askos("run", "-d", "--rm", "--name", "short", "busybox", "sleep", "5").code == 0
    assert cloud.bodies[1] == {"image": "busybox", "name": "short", "command": ["sleep", "5"], "auto_remove": True}
    refused = askos("run", "--rm", "--restart", "always", "busybox")
    assert (refused.code, len(cloud.bodies)) == (2, 2)
    assert "--rm and --restart exclude each other" in refused.err


def test_an_unknown_image_is_one_line_and_125(askos):
    ran = askos("run", "--name", "x1", "unknown:1")
    assert ran.code == 125
    assert ran.err == (
        "askos: cannot run unknown:1: image unknown:1 was not found in any registry. "
        "x1 is kept: see `askos show x1`, or `askos rm x1`.\n"
    )


@pytest.mark.parametrize("flags", [(), ("-d",), ("--rm",)])
def test_an_unknown_program_is_127(askos, cloud, flags):
    ran = askos("run", *flags, "--name", "x1", "busybox", "nonsense")
    assert ran.code == 127
    assert ran.err.count("\n") == 1
    assert "executable file not found" in ran.err
    assert ("is kept" in ran.err) == ("--rm" not in flags)
    assert any(line.startswith("DELETE") for line in cloud.seen) == ("--rm" in flags)


def test_run_refused_by_the_api_is_125(askos):
    ran = askos("run", "x")
    assert (ran.code, ran.err.count("\n")) == (125, 1)
    assert ran.err.startswith("askos: cannot run x: Invalid input for field 'image'")


def test_interactive_run_without_attach_says_what_to_do_and_creates_nothing(askos, cloud):
    ran = askos("run", "-i", "busybox", "cat")
    assert ran.code == 125
    assert "does not offer attach. Start it with `askos run -d -i ...`" in ran.err
    assert cloud.containers == []


def test_interactive_run_attaches_where_it_is_offered(askos, cloud):
    cloud.attach = True
    ran = askos("run", "-i", "busybox", "sh", "-c", "sleep 0.2; echo hi; exit 6")
    assert (ran.code, ran.out, ran.err) == (6, "hi\n", "")


def test_output_survives_a_server_that_goes_away(askos, cloud):
    cloud.break_logs_after = [7, 12]
    ran = askos("run", "busybox", "sh", "-c", "sleep 0.2; echo one two three; echo four >&2")
    assert (ran.code, ran.out, ran.err) == (0, "one two three\n", "four\n")
    assert cloud.break_logs_after == []


STAMP = "2026-11-21T08:00:00.0005Z "


@pytest.mark.parametrize("flags", [(), ("-t",)])
@pytest.mark.parametrize("breaks", [3, 20, 38, 75])
def test_the_end_of_a_log_that_is_followed_survives_a_server_that_goes_away(askos, cloud, monkeypatch, flags, breaks):
    monkeypatch.setattr(rejoin, "FIRST_S", 0.01)
    script = "for i in 1 2 3 4 5; do echo line $i; done; sleep 0.2; echo late >&2; sleep 0.2; echo line 6; exit 0"
    askos("run", "-d", "--name", "job", "busybox", "sh", "-c", script)
    while b"line 5" not in b"".join(data for _, data in cloud.find("job").log):
        time.sleep(0.01)
    # The first answer is of the look at what there is; then each connection breaks a bit later than the one before.
    cloud.break_logs_after = [1 << 30, breaks, breaks + 3, breaks + 40]
    ran = askos("logs", "-f", *flags, "-n", "3", "job")
    assert ran.code == 0
    out = ran.out.splitlines()
    assert [line[-6:] for line in out] == ["line 3", "line 4", "line 5", "line 6"]
    assert all(line.startswith("2026-11-21T08:") is bool(flags) for line in out)
    assert [line[-4:] for line in ran.err.splitlines() if not line.startswith("askos:")] == ["late"]


def test_nothing_of_what_was_there_with_a_tail_of_none(askos, cloud):
    askos("run", "--name", "job", "busybox", "sh", "-c", "echo one; echo two")
    assert askos("logs", "-f", "-n", "0", "job").out == ""
    assert askos("logs", "-f", "-n", "1", "job").out == "two\n"


def test_times_of_logs():
    assert tailing.time_ns(b"1970-01-01T00:00:01.5Z") == 1_500_000_000
    assert tailing.time_ns(b"1970-01-01T02:00:00.000000007+02:00") == 7
    assert tailing.time_ns(b"1970-01-01T00:00:02Z") == 2_000_000_000
    for wrong in (b"", b"soon", b"1970-13-01T00:00:00Z"):
        with pytest.raises(ClientError, match="a line without a time"):
            tailing.time_ns(wrong)


@pytest.mark.parametrize("more", [(), ("-t",), ("--since", "10m")])
def test_a_log_that_is_followed_survives_a_server_that_goes_away(askos, cloud, more):
    askos("run", "--name", "job", "busybox", "sh", "-c", "echo one two three; echo four >&2")
    cloud.break_logs_after = [7, 12]
    ran = askos("logs", "-f", *more, "job")
    assert ran.code == 0
    assert [line.removeprefix(STAMP) for line in ran.out.splitlines()] == ["one two three"]
    told = [line.removeprefix(STAMP) for line in ran.err.splitlines()]
    assert told.count("four") == 1
    assert any("trying again" in line for line in told) and any("the server is back" in line for line in told)


@pytest.mark.parametrize(
    "words", [("image", "tag"), ("image", "search"), ("search",), ("diff",), ("build",), ("prune",)]
)
def test_words_of_docker_without_a_meaning_here_say_what_to_use(askos, words):
    ran = askos(*words, "x")
    assert ran.code == 2
    assert "there is no command" in ran.err and ("`" in ran.err or "elsewhere" in ran.err)


def test_create_then_start_then_stop_then_rm(askos, cloud):
    created = askos("create", "--name", "web", "busybox", "sleep", "100")
    assert created.out.strip() == cloud.find("web").uuid
    assert cloud.find("web").status == "Created"
    assert askos("start", "web").out == "web\n"
    assert cloud.find("web").status == "Running"
    assert askos("restart", "-t", "3", "web").out == "web\n"
    assert any("reboot?timeout=3" in line for line in cloud.seen)
    assert askos("stop", "-t", "2", "web").out == "web\n"
    assert any("stop?timeout=2" in line for line in cloud.seen)
    assert cloud.find("web").status == "Stopped"
    assert askos("rm", "web").out == "web\n"
    assert cloud.find("web") is None


def test_several_names_are_all_tried_and_failures_are_reported(askos, cloud):
    askos("run", "-d", "--name", "a1", "busybox", "sleep", "100")
    askos("run", "-d", "--name", "b1", "busybox", "sleep", "100")
    ran = askos("stop", "a1", "nope", "b1")
    assert (ran.code, ran.out) == (1, "a1\nb1\n")
    assert ran.err == "askos: cannot stop nope: Container nope could not be found. See `askos ps -a`.\n"


def test_rm_of_a_running_container_needs_force(askos, cloud):
    askos("run", "-d", "--name", "web", "busybox", "sleep", "100")
    ran = askos("rm", "web")
    assert ran.code == 1
    assert ran.err.rstrip().endswith("in Running state. Stop it first, or use `askos rm -f`.")
    assert askos("rm", "-f", "web").code == 0
    assert cloud.find("web") is None


def test_kill_and_wait(askos, cloud):
    askos("run", "-d", "--name", "web", "busybox", "sleep", "100")
    assert askos("kill", "-s", "TERM", "web").out == "web\n"
    assert askos("wait", "web").out == "143\n"
    ran = askos("kill", "web")
    assert ran.code == 1
    assert "It has to run" in ran.err


def test_wait_for_what_never_ran(askos):
    askos("run", "-d", "--name", "x1", "unknown:1")
    ran = askos("wait", "x1")
    assert (ran.code, ran.out) == (1, "")
    assert "it is Error (image unknown:1 was not found in any registry)" in ran.err


def test_ps(askos, cloud):
    askos("run", "-d", "--name", "web", "-l", "app=web", "busybox:1.36", "sleep", "100")
    askos("run", "--name", "job", "busybox", "sh", "-c", "exit 3")
    lines = askos("ps").out.splitlines()
    assert lines[0].split() == ["NAME", "UUID", "IMAGE", "COMMAND", "STATUS", "ADDRESS", "CREATED"]
    assert len(lines) == 2
    uuid = cloud.find("web").uuid
    for word in ("web", uuid[:8], "busybox:1.36", "sleep 100", "Up 5 mins", "10.77.0.74", "ago"):
        assert word in lines[1]
    assert uuid not in lines[1]
    assert uuid in askos("ps", "--no-trunc").out
    assert [line.split()[0] for line in askos("ps", "-a").out.splitlines()] == ["NAME", "job", "web"]
    assert "Exited(3) 8 mins ago" in askos("ps", "-a").out
    assert askos("ps", "-q").out == f"{uuid}\n"
    assert askos("ps", "-aq", "--filter", "status=exited").out == f"{cloud.find('job').uuid}\n"
    assert askos("ps", "-aq", "--filter", "label=app=web").out == f"{uuid}\n"
    assert askos("ps", "-aq", "--filter", "label=app=db").out == ""
    assert askos("ps", "-aq", "--filter", "name=eb").out == f"{uuid}\n"
    assert askos("ps", "-aq", "--filter", "image=busybox", "-f", "name=web").out == f"{uuid}\n"
    assert [c["name"] for c in json.loads(askos("ps", "-a", "-o", "json").out)] == ["job", "web"]
    assert "name: web" in askos("ps", "-o", "yaml").out
    assert "512MiB" in askos("ps", "-o", "wide").out


def test_ps_follows_pages(askos, cloud):
    for n in range(5):
        askos("create", "--name", f"c{n}", "busybox")
    cloud.page_size = 2
    assert len(askos("ps", "-aq").out.splitlines()) == 5


def test_ps_with_a_wrong_filter_is_a_usage_error(askos):
    ran = askos("ps", "--filter", "colour=blue")
    assert ran.code == 2
    assert "name, status, label, image" in ran.err


def test_show(askos, cloud):
    askos("run", "-d", "--name", "web", "-e", "A=1", "-e", "B=two words", "busybox", "sleep", "100")
    text = askos("show", "web").out
    assert "Status:       Running (Up 5 mins)\n" in text
    assert "Environment:  A=1\n              B=two words\n" in text
    assert json.loads(askos("show", "-o", "json", "web").out)["uuid"] == cloud.find("web").uuid
    several = askos("show", "-o", "json", "web", "nope")
    assert several.code == 1
    assert [c["name"] for c in json.loads(several.out)] == ["web"]
    assert "cannot show nope" in several.err


def test_logs(askos, cloud):
    askos("run", "--name", "job", "busybox", "sh", "-c", "echo out; echo err >&2")
    ran = askos("logs", "job")
    assert (ran.code, ran.out, ran.err) == (0, "out\n", "err\n")
    askos("logs", "-f", "-n", "5", "-t", "--since", "1700000000", "job")
    assert cloud.seen[-1].endswith("logs?streams=1&tail=5&follow=1&timestamps=1&since=1700000000")
    assert askos("logs", "--tail", "x", "job").code == 2
    assert askos("logs", "nope").code == 1


def test_a_zun_without_our_native_api_is_served_too(askos, cloud):
    cloud.native = False
    askos("run", "-d", "--name", "job", "busybox", "sh", "-c", "echo out; echo err >&2; exit 2")
    assert askos("wait", "job").out == "2\n"
    ran = askos("logs", "job")
    assert (ran.code, ran.out, ran.err) == (0, "out\n", "err\n")
    assert "Leave out -f" in askos("logs", "-f", "job").err
    assert "does not offer exec" in askos("exec", "job", "true").err


def test_images(askos, cloud, tmp_path):
    listed = askos("image", "ls").out
    assert listed.splitlines()[1].split() == ["busybox:latest", "000000000000", "4.3MB"]
    assert askos("images", "-q").out == f"sha256:{0:064x}\n"
    assert askos("image", "pull", "app:2").out == "app:2\n"
    cloud.pull_lines = [{"status": "error", "message": "no registry answers."}]
    assert askos("pull", "app:2").err == "askos: cannot pull app:2: no registry answers.\n"
    cloud.pull_lines = [{"status": "pulling", "current": 1, "total": 2}]
    assert "without a result" in askos("pull", "app:2").err
    archive = tmp_path / "image.tar"
    archive.write_bytes(b"x" * 3_000_001)
    assert askos("image", "import", str(archive), "app:3").out == "app:3\n"
    assert cloud.imported == [("app:3", 3_000_001)]
    assert "no such file" in askos("image", "import", str(tmp_path / "none")).err
    ran = askos("image", "rm", "nope", "busybox:latest")
    assert (ran.code, ran.out, cloud.images) == (1, "busybox:latest\n", {})
    assert "See `askos image ls`" in ran.err


def test_version(askos, cloud):
    ran = askos("version")
    assert ran.code == 0
    assert cloud.url in ran.out
    assert "1.1 to 1.40" in ran.out
    assert json.loads(askos("version", "-o", "json").out)["server"]["max_version"] == "1.40"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("rm", ""), "a name is empty"),
        (("show", ""), "a name is empty"),
        (("stop", ""), "a name is empty"),
        (("run", "-l", "", "busybox"), "the label '': it has no name"),
        (("run", "-l", "=x", "busybox"), "the label '=x': it has no name"),
        (("run", "--cpus", "nan", "busybox"), "nan is no number of processors"),
        (("update", "--cpus", "inf", "web"), "inf is no number of processors"),
    ],
)
def test_what_is_empty_or_no_number_is_refused_before_anybody_is_asked(askos, cloud, words, complaint):
    refused = askos(*words)
    assert refused.code != 0
    assert complaint in refused.err
    assert "mistake in askos" not in refused.err
    assert cloud.bodies == []


def test_lists_in_the_form_that_is_asked_for(askos, cloud):
    askos("create", "--name", "web", "--label", "a=b", "busybox", "echo", "x\ty")
    uuid = cloud.find("web").uuid
    assert askos("ps", "-a", "--format", "{{.ID}}\\t{{ .Names }}: {{.Image}}").out == f"{uuid}\tweb: busybox\n"
    assert askos("ps", "-a", "--format", "{{.State}} {{.Labels}}").out == "created a=b\n"
    assert "\t" not in askos("ps", "-a", "--format", "{{.Command}}").out
    assert [json.loads(line)["uuid"] for line in askos("ps", "-a", "--format", "json").out.splitlines()] == [uuid]
    assert json.loads(askos("show", "--format", "{{json .}}", "web").out)["uuid"] == uuid
    assert askos("show", "-f", "{{.Name}}", "web", "nobody").out == "web\n"
    assert askos("ps", "-q", "--format", "json").code == askos("show", "-o", "yaml", "-f", "json", "web").code == 2


@pytest.mark.parametrize("template", ["{{.Nope}}", "{{range .}}", "{{.ID", "x}}", "table {{.ID}}", "{{.State.Pid}}"])
def test_what_is_no_placeholder_is_refused(askos, template):
    for command in (["ps"], ["show", "web"]):
        refused = askos(*command, "--format", template)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "{{.Names}}" in refused.err and "json" in refused.err
