// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// answerSet has the mark with which answers leave a sealed freeze. Seal adds it, and the
// rule for it, where it is wanted: a freeze without answers pays nothing for it.
var answerSet = &nftables.Set{Name: "answers", ID: 9, KeyType: nftables.TypeMark, KeyByteOrder: binaryutil.NativeEndian}

// answersPass is the comment of the rules for answers.
const answersPass = "answers for the frozen sockets"

// The length of the longest answer, in bytes: an IPv6 header and a TCP header with
// timestamps. Where it leaves by an Ethernet interface, that has a header too.
const (
	answerLen   = 40 + 20 + 12
	ethernetLen = 14
)

// passAnswers has the sealed table t let through answers with the mark pass, and with no
// other; none if it is 0.
func (c *nftConn) passAnswers(t *nftables.Table, pass uint32) error {
	set := setOf(t, answerSet)
	_, err := c.GetSetByName(t, set.Name)
	switch {
	case err == nil: // with its rule, which came with it
		c.FlushSet(set)
		if pass == 0 {
			return nil
		}
		return c.SetAddElements(set, markElement(pass))
	case !errors.Is(err, unix.ENOENT):
		return fmt.Errorf("look for set %s of table %s in %s: %w", set.Name, t.Name, c.ns, err)
	case pass == 0:
		return nil
	}
	if err := c.AddSet(set, markElement(pass)); err != nil {
		return err
	}
	c.InsertRule(ruleOf(&nftables.Chain{Table: t, Name: outputChain}, answersPass, isAnswer(set, answerLen), accept()))
	return nil
}

// markElement returns a mark as the element of a set.
func markElement(mark uint32) []nftables.SetElement {
	return []nftables.SetElement{{Key: binaryutil.NativeEndian.PutUint32(mark)}}
}

// isAnswer matches packets with a mark in the set which are TCP, have no flag but ACK,
// close the window, and are no longer than longest, in bytes: they carry no data.
func isAnswer(marks *nftables.Set, longest uint32) []expr.Any {
	match := append([]expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, lookup(marks)}, isTCP()...)
	return append(match,
		transport(tcpFlagsOffset, 1, 1),
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{tcpACK}},
		transport(tcpWindowOffset, 2, 1),
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, 0}},
		&expr.Meta{Key: expr.MetaKeyLEN, Register: 1},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: binaryutil.BigEndian.PutUint32(longest)},
	)
}
