"""The least time of an update, from what a compiled program says."""

import pytest

from gpt1_jax.machine import roofline
from gpt1_jax.machine.roofline import Collective
from gpt1_jax.machine.topology import slice_named

# Lines as libtpu 0.0.42.1 writes them, shortened: each form of a group, and an all-gather that is
# taken through three steps.
PROGRAM = """
%all-gather.93 = bf16[2,4]{1,0:T(8,128)(2,1)} all-gather(%p.1), channel_id=20, \
replica_groups=[4,2]<=[8], dimensions={1}
%all-gather.95 = bf16[2,4]{1,0:T(8,128)(2,1)S(1)} all-gather(%p.2), channel_id=20, \
replica_groups=[4,2]<=[8], dimensions={1}
%all-reduce.2 = f32[256]{0:T(256)S(1)} all-reduce(%g), channel_id=8, \
replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}, to_apply=%region
%all-reduce.63 = (bf16[2,2]{1,0}, bf16[3]{0}) all-reduce(%g.1, %g.2), channel_id=61, \
replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add
%all-reduce.9 = f32[]{:T(128)} all-reduce(%a), channel_id=101, \
replica_groups=mesh['axis_0'=1,'axis_1'=2,'axis_3'=4], device_ids=([4,2]T(1,0)) \
{'axis_1','axis_3'}, to_apply=%region
%reduce-scatter.1 = f32[4]{0} reduce-scatter(%b), channel_id=7, replica_groups=[1,8]<=[8]
"""


def test_each_operation_counts_once_with_its_group():
    assert list(roofline.collectives(PROGRAM)) == [
        Collective("all-gather", 16, 2),
        Collective("all-reduce", 1024, 2),
        Collective("all-reduce", 14, 4),
        Collective("all-reduce", 4, 8),
        Collective("reduce-scatter", 16, 8),
    ]


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("all-reduce", 2 * 100 * 3 / 4),
        ("all-gather", 100 * 3 / 4),
        ("reduce-scatter", 3 * 100),
        ("all-to-all", 100 * 3 / 4),
        ("collective-permute", 100),
    ],
)
def test_what_a_chip_sends(kind, sent):
    assert Collective(kind, 100, 4).sent(16) == sent
    assert Collective(kind, 100, None).sent(4) == sent


@pytest.mark.parametrize(
    ("name", "links"),
    [
        ("v5e-1", 0),
        ("v5e-4", 2),
        ("v5e-16", 2),
        ("v5litepod-128", 3),
        ("v6e-256", 4),
        ("v4-8", 2),
        ("v4-32", 3),
        ("v4-256", 6),
    ],
)
def test_links_of_the_chip_with_the_fewest(name, links):
    assert slice_named(name).links == links


def test_of_a_program_with_a_loop_nothing_is_predicted():
    program = PROGRAM + "%w = (s32[], f32[4]) while(%t), condition=%c, body=%b"
    assert roofline.predicted(None, slice_named("v5e-8"), program, 1.0) is None
