"""OpenNebula's template text, as a real frontend reads it and gives it back."""

import pytest

from snapferry.lab.opennebula.attributes import Attributes
from snapferry.lab.opennebula.errors import OneError


def test_single_values_vectors_and_comments_are_read() -> None:
    nic = 'NIC = [ NETWORK_ID=0,\n  MAC="00:50:56:aa:bb:cc", MODEL = virtio ]\n'
    text = f'# a comment\nname = web01\n{nic}BLOB="two\nlines"\n'
    given = Attributes.parse(text)
    assert given.get("NAME") == "web01"
    assert given.vector("NIC") == {"NETWORK_ID": "0", "MAC": "00:50:56:aa:bb:cc", "MODEL": "virtio"}
    assert given.get("BLOB") == "two\nlines"


def test_names_come_back_sorted_and_in_cdata_and_a_repeated_name_keeps_its_order() -> None:
    given = Attributes.parse("DISK=[TARGET=vda,IMAGE_ID=1]\nCPU=2\nDISK=[IMAGE_ID=0]\n")
    assert given.xml("TEMPLATE") == (
        "<TEMPLATE><CPU><![CDATA[2]]></CPU>"
        "<DISK><IMAGE_ID><![CDATA[1]]></IMAGE_ID><TARGET><![CDATA[vda]]></TARGET></DISK>"
        "<DISK><IMAGE_ID><![CDATA[0]]></IMAGE_ID></DISK></TEMPLATE>"
    )


def test_xml_is_read_like_text_and_names_are_upper_cased() -> None:
    given = Attributes.parse("<TEMPLATE><mig><A><![CDATA[1]]></A><B>x &amp; ]]</B></mig><uni>kůň</uni></TEMPLATE>")
    assert given.vector("MIG") == {"A": "1", "B": "x & ]]"}
    assert given.get("UNI") == "kůň"


def test_an_open_bracket_is_named_by_line_and_columns() -> None:
    with pytest.raises(OneError, match="unexpected VARIABLE, expecting COMMA or CBRACKET at line 4, columns 42:45"):
        Attributes.parse("NAME=tx\nCPU=1\nMEMORY=64\nDISK=[IMAGE_ID=1\nNIC=[\n")


@pytest.mark.parametrize("text", ["<TEMPLATE><X><V><![CDATA[a]]>b]]></V></X></TEMPLATE>", 'X="a]]>b"', "<TEMPLATE><X>"])
def test_the_end_of_a_cdata_section_can_not_be_stored(text: str) -> None:
    with pytest.raises(OneError, match="XML Template malformed"):
        Attributes.parse(text)


def test_a_merge_replaces_a_name_whole_and_an_empty_vector_deletes_it() -> None:
    old = Attributes.parse('MIG_STATE=[PHASE="full",RUN="1"]\nDISK=[IMAGE_ID=1]\nDISK=[IMAGE_ID=2]\nKEY="k"\n')
    old.merge(Attributes.parse('MIG_STATE=[PHASE="delta"]\nDISK=[ ]\nKEY=""\n'))
    assert old.plain() == {"KEY": "", "MIG_STATE": {"PHASE": "delta"}}
