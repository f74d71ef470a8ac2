"""Every form of a project is read as its file says, and what is wrong in it is said in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlcore_projects.errors import ProjectError
from mlcore_projects.reading import read_command, read_project
from mlcore_projects.specs import Parameter, Project


def project(folder: Path, **files: str) -> Project:
    """Write files, whose names have __ for a dot, and read the project."""
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return read_project(folder)


MLPROJECT = """
name: demo
python_env: env.yaml
entry_points:
  main:
    parameters:
      alpha: {type: float, default: 0.5}
      data: {type: path, default: data.csv}
      note: string
      depth: {type: int}
      odd: {type: somethingelse}
      day: {default: 2026-01-31}
    command: "python train.py --alpha {alpha} {data} {note} {depth} {odd} {day}"
"""
ENV = """
python: "3.11.7"
build_dependencies: [pip, setuptools==70.0, wheel]
dependencies:
  - numpy>=1
  - -r requirements.txt
"""


class TestMLproject:
    def test_the_whole_schema_is_read(self, tmp_path: Path) -> None:
        """Guards types by a word or a table, defaults, types that MLflow takes for texts, and the environment."""
        found = project(tmp_path, MLproject=MLPROJECT, env__yaml=ENV)
        assert (found.name, found.form, found.folder) == ("demo", "MLproject", tmp_path)
        assert found.entry_points["main"].parameters == (
            Parameter("alpha", "float", 0.5, required=False),
            Parameter("data", "path", "data.csv", required=False),
            Parameter("note"),
            Parameter("depth", "int"),
            Parameter("odd"),
            Parameter("day", default="2026-01-31", required=False),
        )
        assert found.entry_points["main"].open
        wanted = found.environment
        assert (wanted.kind, wanted.python, wanted.folder) == ("", "3.11.7", tmp_path)
        assert wanted.requirements == ("numpy>=1", "-r requirements.txt")
        assert wanted.build == ("pip", "setuptools==70.0", "wheel")

    @pytest.mark.parametrize("name", ["MLproject", "mlproject", "MLPROJECT", "mlProject"])
    def test_the_file_may_be_written_in_any_case(self, name: str, tmp_path: Path) -> None:
        """Guards what MLflow finds."""
        (tmp_path / name).write_text("entry_points: {main: {command: python x.py}}")
        assert read_project(tmp_path).form == "MLproject"
        assert read_project(tmp_path / name).form == "MLproject"

    def test_a_conda_file_gives_its_python_and_what_pip_can_install(self, tmp_path: Path) -> None:
        """Guards MLflow's rule for a conda.yaml without conda, and that what is left out is said."""
        conda = """
        channels: [conda-forge]
        dependencies:
          - python=3.9.1=h12
          - pip<=23.0
          - conda-forge::setuptools=65
          - cudatoolkit=11
          - pip: [numpy==1.26, "scipy"]
        """
        found = project(tmp_path, MLproject="conda_env: c.yaml", c__yaml=conda).environment
        assert (found.python, found.requirements) == ("3.9.1", ("numpy==1.26", "scipy"))
        assert found.build == ("pip<=23.0", "setuptools==65")
        assert (found.left_out, found.conda) == (("cudatoolkit=11",), tmp_path / "c.yaml")

    def test_a_container_is_kept_as_it_is_said(self, tmp_path: Path) -> None:
        """Guards docker_env, which a runner plugin reads."""
        text = 'docker_env: {image: "a/b:c", volumes: ["/x:/y"], environment: [["NEW", "v; x"], "COPY"]}'
        found = project(tmp_path, MLproject=text).environment
        assert found.kind == "docker"
        assert found.container == {"image": "a/b:c", "volumes": ["/x:/y"], "environment": [["NEW", "v; x"], "COPY"]}

    def test_without_an_environment_the_files_beside_it_are_asked(self, tmp_path: Path) -> None:
        """Guards MLflow's order: python_env.yaml, then conda.yaml; and requirements.txt, which comes last."""
        text = "entry_points: {main: {command: python x.py}}"
        assert project(tmp_path, MLproject=text).environment.requirements == ()
        assert project(tmp_path, requirements__txt="a").environment.requirements == ("-r requirements.txt",)
        assert project(tmp_path, conda__yaml="dependencies: [{pip: [b]}]").environment.requirements == ("b",)
        assert project(tmp_path, python_env__yaml="dependencies: [c]").environment.requirements == ("c",)

    def test_a_job_for_databricks_is_read_and_named_so(self, tmp_path: Path) -> None:
        """Guards the last part of the schema."""
        text = "databricks_spark_job: {python_file: x.py, parameters: [1, a], python_libraries: [numpy]}"
        found = project(tmp_path, MLproject=text).environment
        assert found.kind == "databricks"
        assert found.container == {"python_file": "x.py", "parameters": ["1", "a"], "python_libraries": ["numpy"]}

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("python_env: a\nconda_env: b", "must name one environment, and has python_env and conda_env"),
            ("python_env: none.yaml", "names 'none.yaml', and there is no such file"),
            ("python_env: /etc/passwd", "must be relative to the project's folder"),
            ("docker_env: {volumes: []}", "image must be some text"),
            ("docker_env: {image: '-x'}", "must not begin with a dash"),
            ("docker_env: {image: a, environment: [[A]]}", "must be a list of names to copy and pairs to set"),
            ("entry_points: [a]", "entry_points must be a table"),
            ("entry_points: {main: {}}", "must have a command"),
            ("entry_points: {main: {command: 'x {beta}', parameters: {beat: int}}}", "did you mean 'beat'?"),
            ("entry_points: {main: {command: 'x {a.b!r:>9}'}}", "names no parameter; write '{{'"),
            ("entry_points: {main: {command: 'x \"'}}", 'a " is not closed'),
            ("entry_points: {main: {command: 'x', parameters: {'a b': int}}}", "cannot name a parameter"),
            ("entry_points: {main: {command: 'x', parameters: {a: {default: [1]}}}}", "default must be a text"),
            ("entry_points: {main: {command: 'x', parameters: {a: {type: choice}}}}", "must have choices"),
            ("databricks_spark_job: {}", "must have a python_file, or the project entry points"),
            ("- a", "must be a table of names and values"),
            ("a: [", "is not YAML"),
            ("a: !!python/object/apply:os.system ['touch M']", "is not YAML: could not determine a constructor"),
            ("x: 2026-99-99", "is not YAML"),
        ],
    )
    def test_what_is_wrong_is_said(self, text: str, told: str, tmp_path: Path) -> None:
        """Guards one clear error that names the file."""
        with pytest.raises(ProjectError, match="MLproject") as raised:
            project(tmp_path, MLproject=text)
        assert told in str(raised.value)
        assert "\n" not in str(raised.value)


class TestBounds:
    def test_aliases_do_not_grow_beyond_what_is_counted(self, tmp_path: Path) -> None:
        """Guards against the billion laughs, in lists and in merges."""
        laughs = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
        merges = "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))
        for text in (laughs, merges):
            with pytest.raises(ProjectError, match="more than 50,000 values"):
                project(tmp_path, MLproject=text)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("[" * 40_000, "nested deeper than 50 levels"),
            ("a: &a [*a]", "an alias stands for what it is a part of"),
            ("#" * 2_000_000, "too large"),
            ("a: \x00", "is not YAML"),
        ],
    )
    def test_depth_size_and_circles_are_refused(self, text: str, told: str, tmp_path: Path) -> None:
        """Guards the process that reads what a stranger wrote."""
        with pytest.raises(ProjectError, match=told):
            project(tmp_path, MLproject=text)

    def test_an_honest_alias_is_read(self, tmp_path: Path) -> None:
        """Guards projects that use anchors as YAML means them."""
        text = "entry_points:\n  main: &m {command: python x.py}\n  other: *m\n  third: {<<: *m, parameters: {a: int}}"
        assert sorted(project(tmp_path, MLproject=text).entry_points) == ["main", "other", "third"]

    def test_what_is_no_text_file_is_refused(self, tmp_path: Path) -> None:
        """Guards against bytes that are no UTF-8, and against pipes that never end."""
        (tmp_path / "MLproject").write_bytes(b"name: \xff")
        with pytest.raises(ProjectError, match="is not UTF-8"):
            read_project(tmp_path)


PYPROJECT = """
[project]
name = "digits"
requires-python = ">=3.11"
dependencies = ["numpy>=2", "scikit-learn[x]==1.5; python_version > '3'"]
[project.optional-dependencies]
plots = ["matplotlib"]
[tool.mlcore]
experiment = "digits"
[tool.mlcore.environment]
kind = "uv"
python = "3.11"
requirements = ["--extra-index-url https://example.com/simple", "local @ file:///x"]
extras = ["plots"]
[tool.mlcore.entry_points.main]
command = ["python", "train.py", "--lr={lr}", "{{}}"]
help = "Train."
[tool.mlcore.entry_points.main.parameters]
lr = {type = "float", default = 0.1, help = "the learning rate"}
model = {choices = ["svm", 3, true], default = "svm"}
[tool.mlcore.entry_points.text]
command = "python 'a b.py' --x {x}"
parameters = {x = "str"}
extra = true
"""


class TestPyproject:
    def test_its_tables_are_read(self, tmp_path: Path) -> None:
        """Guards the entry points and environment, and that settings of the same table are left to core."""
        found = project(tmp_path, pyproject__toml=PYPROJECT, uv__lock="")
        assert (found.name, found.form) == ("digits", "pyproject")
        main, text = found.entry_points["main"], found.entry_points["text"]
        assert (main.command, main.help, main.open) == (("python", "train.py", "--lr={lr}", "{{}}"), "Train.", False)
        assert main.parameters == (
            Parameter("lr", "float", 0.1, required=False, help="the learning rate"),
            Parameter("model", "choice", "svm", required=False, choices=("svm", "3", "true")),
        )
        assert (text.command, text.open) == (("python", "a b.py", "--x", "{x}"), True)
        wanted = found.environment
        assert (wanted.kind, wanted.python, wanted.lock) == ("uv", "3.11", tmp_path / "uv.lock")
        assert wanted.requirements == (
            *("numpy>=2", "scikit-learn[x]==1.5; python_version > '3'", "matplotlib"),
            *("--extra-index-url https://example.com/simple", "local @ file:///x"),
        )

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("command = 'python x.py | tee y'", "no shell runs the command, so '|' would do nothing"),
            ("command = 'A=1 python x.py'", "so 'A=' would do nothing"),
            ("command = []", "command must be a list of texts"),
            ("command = [1]", "command must be a list of texts"),
            ("comand = ['x']", "has 'comand', which means nothing there; did you mean 'command'?"),
            ("command = ['x']\nparameters = {a = {tipe = 'int'}}", "did you mean 'type'?"),
            ("command = ['x']\nparameters = {a = 'flaot'}", "there is no type 'flaot'; did you mean 'float'?"),
            ("command = ['x', '{a}']", "names {a}, and no parameter is called so"),
            ("command = ['x']\n[tool.mlcore.environment]\nkind = 'Ux'", "kind must be a name such as venv"),
            ("command = ['x']\n[tool.mlcore.environment]\npython = 'x'", "must be a version such as 3.11"),
            ("command = ['x']\n[tool.mlcore.environment]\nlock = 'no'", "there is no such file"),
            ("command = ['x']\n[tool.mlcore.environment]\nrequirements = ['-oX']", "is no option of a file of"),
            ("command = ['x']\n[project]\nname = 'x'\ndependencies = ['-oX']", "is no requirement"),
            ("command = ['x']\n[project]\nname = 'x'\ndependencies = [\"a\\nb\"]", "each of one line"),
            ("command =", "is not TOML"),
        ],
    )
    def test_what_is_wrong_is_said(self, text: str, told: str, tmp_path: Path) -> None:
        """Guards one clear error that names the file."""
        with pytest.raises(ProjectError, match=r"pyproject\.toml") as raised:
            project(tmp_path, pyproject__toml=f"[tool.mlcore.entry_points.main]\n{text}")
        assert told in str(raised.value)

    def test_an_mlproject_comes_first_and_the_other_may_be_named(self, tmp_path: Path) -> None:
        """Guards a folder that has both."""
        text = "[tool.mlcore.entry_points.main]\ncommand = ['x']"
        assert project(tmp_path, MLproject="name: a", pyproject__toml=text).form == "MLproject"
        assert read_project(tmp_path / "pyproject.toml").form == "pyproject"


SCRIPT = '''#!/usr/bin/env python
# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy"]
#
# [tool.mlcore.parameters]
# lr = {type = "float", default = 0.1}
# flag = "bool"
# ///
"""Train."""
'''


class TestScript:
    def test_its_metadata_are_read(self, tmp_path: Path) -> None:
        """Guards PEP 723: what the script needs, and its parameters, which are passed as options."""
        (tmp_path / "train.py").write_text(SCRIPT)
        (tmp_path / "train.py.lock").write_text("")
        found = read_project(tmp_path / "train.py")
        main = found.entry_points["main"]
        assert (found.form, found.source.kind, main.open) == ("script", "script", False)
        assert main.command == ("python", "train.py", "--lr", "{lr}", "--flag", "{flag}")
        assert (found.environment.python, found.environment.requirements) == (">=3.11", ("numpy",))
        assert found.environment.lock == tmp_path / "train.py.lock"

    def test_one_without_metadata_has_the_environment_beside_it(self, tmp_path: Path) -> None:
        """Guards a plain script, which takes whatever is passed."""
        (tmp_path / "a {b}.py").write_text("print()")
        (tmp_path / "requirements.txt").write_text("x")
        found = read_project(tmp_path / "a {b}.py")
        assert found.entry_points["main"].command == ("python", "a {{b}}.py")
        assert found.entry_points["main"].open
        assert found.environment.requirements == ("-r requirements.txt",)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("# /// script\n# a = 1\n# ///\n\n# /// script\n# b = 1\n# ///\n", "has 2 blocks of metadata"),
            ("# /// script\n# a =\n# ///\n", "metadata is not TOML"),
            ("# /// script\n# dependencies = ['; x']\n# ///\n", "is no requirement"),
            ("# /// script\n# [tool.mlcore]\n# paramters = {}\n# ///\n", "did you mean 'parameters'?"),
        ],
    )
    def test_what_is_wrong_is_said(self, text: str, told: str, tmp_path: Path) -> None:
        """Guards one clear error."""
        (tmp_path / "x.py").write_text(text)
        with pytest.raises(ProjectError, match=r"x\.py") as raised:
            read_project(tmp_path / "x.py")
        assert told in str(raised.value)

    def test_a_block_in_a_text_or_of_another_kind_is_none(self, tmp_path: Path) -> None:
        """Guards what the standard says of other types, and of files from Windows."""
        (tmp_path / "x.py").write_text('# /// other\n# a =\n# ///\nx = """\n## /// script\n"""\n')
        assert read_project(tmp_path / "x.py").entry_points["main"].open
        (tmp_path / "x.py").write_bytes(SCRIPT.replace("\n", "\r\n").encode())
        assert read_project(tmp_path / "x.py").environment.requirements == ("numpy",)


class TestFolderAndCommand:
    def test_a_folder_has_an_entry_point_for_every_script(self, tmp_path: Path) -> None:
        """Guards MLflow's projects without a project file."""
        for name in ("b.py", "a.sh", "c.R", "d.txt"):
            (tmp_path / name).touch()
        found = read_project(tmp_path)
        assert {name: each.command for name, each in found.entry_points.items()} == {
            "a.sh": ("bash", "a.sh"),
            "b.py": ("python", "b.py"),
            "c.R": ("Rscript", "c.R"),
        }

    def test_a_command_is_taken_literally(self, tmp_path: Path) -> None:
        """Guards braces, which mean nothing there, and that the environment is the one that is there."""
        (tmp_path / "requirements.txt").write_text("numpy")
        found = read_command(["python", "-c", "print({1: '{x}'})"], tmp_path)
        assert found.entry_points["main"].command == ("python", "-c", "print({{1: '{{x}}'}})")
        assert (found.form, found.environment.kind, found.folder) == ("command", "system", tmp_path)
        assert found.environment.requirements == ("-r requirements.txt",)
        with pytest.raises(ProjectError, match="there is no command"):
            read_command([], tmp_path)

    def test_what_is_not_there_or_no_project_is_said(self, tmp_path: Path) -> None:
        """Guards the commonest slips."""
        (tmp_path / "x.txt").touch()
        with pytest.raises(ProjectError, match="there is no folder or file"):
            read_project(tmp_path / "none")
        with pytest.raises(ProjectError, match="is no script that mlcore knows"):
            read_project(tmp_path / "x.txt")
