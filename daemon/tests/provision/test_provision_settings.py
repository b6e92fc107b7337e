"""edgeai.toml is read strictly and within limits, and no text about it holds a secret."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeaid.errors import InvalidConfig
from edgeaid.provision.settings import (
    MAX_BYTES,
    Settings,
    Wifi,
    keep,
    key_problem,
    parse,
    preshared_key,
    redact,
    render,
)

from ..support.examples import examples

PHRASE = "correct horse battery"


def ssh_key(kind: str = "ssh-ed25519", content: bytes = b"\0\0\0\x20" + b"k" * 32, comment: str = "me@home") -> str:
    blob = len(kind).to_bytes(4, "big") + kind.encode() + content
    return f"{kind} {base64.b64encode(blob).decode()} {comment}".strip()


FULL = f"""
schema = 1
hostname = "kitchen"
timezone = "Europe/Berlin"
[wifi]
ssid = "Café 5"
country = "DE"
password = "{PHRASE}"
hidden = true
[ssh]
authorized_keys = ["{ssh_key()}"]
[models]
preload = ["digits-1.edgeai"]
""".encode()


def test_a_complete_file_is_read_without_problems() -> None:
    parsed, problems = parse(FULL)
    assert problems == ()
    assert parsed == Settings(
        "kitchen",
        "Europe/Berlin",
        Wifi("Café 5", "DE", PHRASE, hidden=True),
        (ssh_key(),),
        ("digits-1.edgeai",),
    )


def test_what_is_rendered_reads_back_the_same() -> None:
    parsed, _ = parse(FULL)
    assert parse(render(parsed, secret=True)) == (parsed, ())


def test_without_secrets_the_password_is_gone_and_nothing_else() -> None:
    parsed, _ = parse(FULL)
    text = render(parsed, secret=False)
    assert PHRASE.encode() not in text
    again, problems = parse(text)
    assert problems == ()
    assert again.wifi == Wifi("Café 5", "DE", "", hidden=True)
    assert again.authorized_keys == parsed.authorized_keys


def test_a_password_is_not_in_the_text_of_an_object() -> None:
    assert PHRASE not in repr(parse(FULL)[0])


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('hostname = "-x"', "hostname"),
        ('hostname = "UPPER"', "hostname"),
        ('hostname = "' + "x" * 64 + '"', "hostname"),
        ('hostname = "a\\nb"', "hostname"),
        ("hostname = 5", "hostname"),
        ('timezone = "../../etc/passwd"', "timezone"),
        ('timezone = "/etc/passwd"', "timezone"),
        ('hostnam = "x"', "hostnam"),
        ("wifi = 1", "wifi"),
        ('[wifi]\nssid = "x"', "wifi.country"),
        ('[wifi]\ncountry = "DE"', "wifi.ssid"),
        ('[wifi]\nssid = "x"\ncountry = "UK"', "wifi.country"),
        ('[wifi]\nssid = "x"\ncountry = "XX"', "wifi.country"),
        ('[wifi]\nssid = "' + "ä" * 17 + '"\ncountry = "DE"', "wifi.ssid"),
        ('[wifi]\nssid = "a\\nb"\ncountry = "DE"', "wifi.ssid"),
        ('[wifi]\nssid = "x"\ncountry = "DE"\npassword = "short"', "wifi.password"),
        ('[wifi]\nssid = "x"\ncountry = "DE"\npassword = 12345678', "wifi.password"),
        ('[wifi]\nssid = "x"\ncountry = "DE"\nopen = "yes"', "wifi.open"),
        ('[ssh]\nauthorized_keys = "ssh-ed25519"', "ssh.authorized_keys"),
        ('[ssh]\nauthorized_keys = ["nonsense"]', "ssh.authorized_keys"),
        ('[models]\npreload = ["../x-1.edgeai"]', "models.preload"),
        ('[models]\npreload = ["x.edgeai"]', "models.preload"),
        ('[models]\npreload = ["x-0.edgeai"]', "models.preload"),
    ],
)
def test_a_bad_key_is_named_and_the_others_are_kept(line: str, named: str) -> None:
    good = '[ssh]\nauthorized_keys = ["' + ssh_key() + '"]' if "[ssh]" not in line else ""
    parsed, problems = parse(f"schema = 1\n{line}\n{good}".encode())
    assert len(problems) >= 1
    assert problems[0].startswith(named) or repr(named) in problems[0]
    assert parsed.authorized_keys == ((ssh_key(),) if good else ())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"schema = 2",
        b'schema = "2"',
        b"schema = true",
        b"hostname = 'x'",
        b"\xff\xfe",
        b"schema = 1\n#" + b"x" * MAX_BYTES,
        b"x = " + b"[" * 5000,
        b"x = " + b"9" * 5000,
    ],
)
def test_a_file_that_cannot_be_used_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidConfig):
        parse(data)


def test_windows_editors_are_understood() -> None:
    parsed, problems = parse(b"\xef\xbb\xbf" + FULL.replace(b"\n", b"\r\n"))
    assert (parsed.hostname, problems) == ("kitchen", ())


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com"])
def test_public_keys_are_accepted(kind: str) -> None:
    assert key_problem(ssh_key(kind)) == ""


@pytest.mark.parametrize(
    "line",
    [
        'command="x" ' + ssh_key(),
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        ssh_key()[:30],
        ssh_key().replace("ssh-ed25519", "ssh-rsa", 1),
        "ssh-ed25519 ???? x",
        ssh_key(comment="a\x1bb"),
        ssh_key(comment="x" * 9000),
    ],
)
def test_other_lines_are_no_keys(line: str) -> None:
    assert key_problem(line)


def test_a_key_of_wpa_is_the_one_of_the_standard() -> None:
    # IEEE 802.11i, annex H.4, test vector 1
    assert preshared_key("IEEE", "password") == "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"


@pytest.mark.parametrize(
    "broken",
    [
        f'hostname = "x" password = "{PHRASE}"',
        f'wifi = {{ ssid = "x", password = "{PHRASE}" ',
        f'a = "\nwifi.password = """\n{PHRASE}\n"""',
        f'a = "\n"p\\u0061ssword" = "{PHRASE}"',
        f'# password {PHRASE}\n= "',
    ],
)
def test_a_secret_does_not_survive_in_a_file_that_cannot_be_read(broken: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse(broken.encode())
    assert PHRASE not in str(caught.value)
    assert PHRASE.encode() not in redact(broken.encode())


def test_harmless_lines_of_a_broken_file_stay() -> None:
    assert b'hostname = "x"' in redact(b'hostname = "x"\nfoo = \n')


texts = st.text(st.characters(codec="utf-8"), max_size=80)
values = st.recursive(
    st.one_of(st.booleans(), st.integers(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


@given(st.one_of(st.binary(max_size=400), texts.map(lambda t: f"schema = 1\n{t}".encode())))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    try:
        parsed, _ = parse(data)
    except InvalidConfig:
        redact(data)
        return
    assert parse(render(parsed, secret=True)) == (parsed, ())


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    assert isinstance(value, dict)
    return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"


@settings(max_examples=examples(150), deadline=None)
@given(
    st.dictionaries(
        st.one_of(st.sampled_from(["hostname", "timezone", "wifi", "ssh", "models"]), texts),
        st.one_of(
            values,
            st.dictionaries(
                st.sampled_from(["ssid", "country", "password", "open", "hidden", "authorized_keys", "preload"]), values
            ),
        ),
        max_size=5,
    )
)
def test_any_value_in_any_place_is_used_or_reported(content: dict[str, object]) -> None:
    content.pop("schema", None)
    text = "schema = 1\n" + "".join(f"{toml(k)} = {toml(v)}\n" for k, v in content.items())
    try:
        parsed, problems = parse(text.encode())
    except InvalidConfig:
        return
    assert all(p.isprintable() for p in problems)
    assert parse(render(parsed, secret=True)) == (parsed, ())


@settings(deadline=None)
@given(
    st.text(st.sampled_from(string.printable[:95]), min_size=8, max_size=63),
    st.text(min_size=1, max_size=8).filter(str.isprintable),
)
def test_any_network_survives_being_written_and_read(password: str, ssid: str) -> None:
    wanted = Settings(wifi=Wifi(ssid, "DE", password))
    assert parse(render(wanted, secret=True)) == (wanted, ())


def test_a_line_that_is_no_toml_costs_that_line_only() -> None:
    text = 'schema = 1\nhostname = "x\ntimezone = "Europe/Berlin"\n[wifi\nssid = "n"\ncountry = de\ncountry = "de"\n'
    parsed, problems = parse(text.encode())
    assert (parsed.hostname, parsed.timezone) == ("", "Europe/Berlin")
    assert parsed.wifi is not None
    assert (parsed.wifi.ssid, parsed.wifi.country) == ("n", "DE")
    assert [p.partition(":")[0] for p in problems] == ["line 2", "line 4", "line 6"]


KEY = ssh_key()
GOOD = f"""schema = 1
hostname = "pi"
timezone = "Europe/Berlin"
[wifi]
ssid = "n"
country = "DE"
password = "{PHRASE}"
[ssh]
authorized_keys = [
  "{KEY}",
]
[models]
preload = ["bird-1.edgeai"]
"""


@pytest.mark.parametrize(
    ("right", "wrong", "lost", "said"),
    [
        ('hostname = "pi"', 'hostname = "pi', "hostname", "line 2"),
        ('hostname = "pi"', "hostname: pi", "hostname", "line 2"),
        ('hostname = "pi"', "hostname =", "hostname", "line 2"),
        ('hostname = "pi"', "hostname = {", "hostname", "line 2"),
        ('hostname = "pi"', 'hostname = """pi"', "hostname", "line 2"),
        ('hostname = "pi"', "hostname = '''pi", "hostname", "line 2"),
        ('hostname = "pi"', 'hostname = "p\0i"', "hostname", "line 2"),
        ('hostname = "pi"', 'hostname = "pi"\nhostname = "other"', "", "line 3"),
        ('hostname = "pi"', 'hostname = "pi"\nwifi = "n"', "", "wifi"),
        ('hostname = "pi"', 'hostname = "pi"\nsome remark', "", "line 3"),
        ("schema = 1", 'schema = "1"', "", "schema"),
        ("schema = 1", "schema: 1", "", "line 1"),
        ("[wifi]", "[wifi", "", "line 4"),
        ("[wifi]", "wifi]", "", "line 4"),
        ("[wifi]", "[[wifi]]", "", "wifi"),
        ("[wifi]", "[wifi] x", "", "line 4"),
        ('timezone = "Europe/Berlin"', "timezone = Europe/Berlin", "timezone", "line 3"),
        ('timezone = "Europe/Berlin"', "timezone = \u201cEurope/Berlin\u201d", "timezone", "line 3"),
        (f'  "{KEY}",\n]', f'  "{KEY}",', "", "line 9"),
        (f'  "{KEY}",\n]', f'  "{KEY}"\n  "{KEY}"\n]', "", "line 11"),
        (f'  "{KEY}",\n]', f'  "{KEY}",\n  {KEY},\n]', "", "line 11"),
        (f'  "{KEY}",\n]', f'  "{KEY},\n]', "authorized_keys", "line 10"),
        ("authorized_keys = [", "authorized_keys =", "authorized_keys", "line 9"),
        ('preload = ["bird-1.edgeai"]', 'preload = ["bird-1.edgeai"', "", "line 13"),
        ('preload = ["bird-1.edgeai"]', "preload = [bird-1.edgeai]", "preload", "line 13"),
    ],
)
def test_a_wrong_line_costs_what_stands_in_it_and_nothing_else(right: str, wrong: str, lost: str, said: str) -> None:
    whole, problems = parse(GOOD.encode())
    assert problems == ()
    parsed, problems = parse(GOOD.replace(right, wrong, 1).encode())
    empty = Settings()
    for name in ("hostname", "timezone", "wifi", "authorized_keys", "preload"):
        assert getattr(parsed, name) == getattr(empty if name == lost else whole, name), (name, problems)
    assert problems[0].startswith(said)
    assert len(problems) == 1
    assert PHRASE not in str(problems)


def test_a_table_that_is_begun_twice_is_one_table() -> None:
    text = GOOD.replace("[ssh]", '[ssh]\n[wifi]\nhidden = true\ncountry = "FR"\n[ssh]')
    parsed, problems = parse(text.encode())
    assert parsed.wifi == Wifi("n", "DE", PHRASE, hidden=True)
    assert parsed.authorized_keys == (KEY,)
    assert [p.partition(":")[0] for p in problems] == ["line 11"]


@pytest.mark.parametrize("country", ["de", "De", "GB", "us", " fr "])
def test_countries_are_known_by_their_codes_in_any_case(country: str) -> None:
    parsed, problems = parse(f'schema = 1\n[wifi]\nssid = "n"\ncountry = "{country}"\nopen = true'.encode())
    assert problems == ()
    assert parsed.wifi is not None
    assert parsed.wifi.country == country.strip().upper()


@pytest.mark.parametrize("country", ["XX", "ß", "EU", "Germany", "UK", "d e", "DE\u00a0", ""])
def test_what_is_no_country_is_refused(country: str) -> None:
    parsed, problems = parse(f'schema = 1\n[wifi]\nssid = "n"\ncountry = "{country}"\nopen = true'.encode())
    assert parsed.wifi is None
    assert any(problem.startswith("wifi.country") for problem in problems)


@pytest.mark.parametrize(
    "ssid",
    [
        "caf\u00e9",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "a\u00a0b",
        "\u3000x",
        "\u202eabc",
        "e\u0301",
        "\ue000",
        "a\u2028b",
        " a ",
        "é" * 16,
    ],
)
def test_any_unicode_is_a_networks_name(ssid: str) -> None:
    parsed, problems = parse(f'schema = 1\n[wifi]\nssid = "{ssid}"\ncountry = "DE"\nopen = true'.encode())
    assert problems == ()
    assert parsed.wifi is not None
    assert parsed.wifi.ssid == ssid


def test_what_was_typed_is_kept_for_correction_without_its_secrets() -> None:
    key = ssh_key()
    text = (
        f'schema = 1\nhostnam = "pi"\n[wifi]\nssid = "n"\ncountry = "UK"\npassword = "{PHRASE}"\n'
        f'pasword = "{PHRASE}2"\n'
        f'[ssh]\nauthorized_keys = [\n  "{key}",\n  "nonsense",\n]\n# remember {PHRASE}\n'
    )
    kept = keep(text.encode(), ()).decode()
    for line in ('hostnam = "pi"', 'ssid = "n"', 'country = "UK"', "authorized_keys = [", key):
        assert line in kept
    assert PHRASE not in kept
    assert keep(keep(text.encode(), ()), ()).decode() == kept


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_what_editors_of_windows_call_unicode_is_read(encoding: str) -> None:
    text = 'schema = 1\nhostname = "pi"\n[wifi]\nssid = "B\u00fcro"\ncountry = "DE"\nopen = true\n'
    parsed, problems = parse(text.replace("\n", "\r\n").encode(encoding))
    assert problems == ()
    assert parsed.wifi is not None
    assert parsed.wifi.ssid == "B\u00fcro"


def test_a_line_in_another_encoding_costs_itself_only() -> None:
    text = 'schema = 1\nhostname = "pi"\n# K\u00fcche\n[wifi]\nssid = "n"\ncountry = "DE"\nopen = true\n'
    parsed, problems = parse(text.encode("cp1252"))
    assert problems == ("line 3: is not UTF-8 text and is not used; save the file as UTF-8",)
    assert parsed.hostname == "pi"
    assert parsed.wifi is not None


def test_a_name_whose_bytes_were_lost_is_not_used() -> None:
    typed = 'schema = 1\n[wifi]\nssid = "B\u00fcro"\ncountry = "DE"\nopen = true\n'.encode("cp1252")
    parsed, problems = parse(keep(typed, ()))
    assert parsed.wifi is None
    assert any(problem.startswith("wifi.ssid") for problem in problems)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hostname = \u201cpi\u201d", "typographic quotation marks"),
        ("hostname = \u201epi\u201c", "typographic quotation marks"),
        ('hostname\u00a0= "pi"', "no-break space"),
        ('hostname: "pi"', "write = for the colon"),
        ("hostname = pi", "quotes at both ends"),
    ],
)
def test_a_line_that_is_not_toml_says_what_is_probably_wrong(line: str, words: str) -> None:
    parsed, problems = parse(f'schema = 1\n{line}\ntimezone = "Europe/Berlin"\n'.encode())
    assert parsed.timezone == "Europe/Berlin"
    assert [words in problem for problem in problems] == [True]
