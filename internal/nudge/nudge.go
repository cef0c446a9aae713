package nudge

import "github.com/criu-netfreeze/criu-netfreeze/internal/tcp"

// maxRepeats is how many segments are repeated at most: TCP's initial window
// would allow ten (RFC 6928); the first is what matters.
const maxRepeats = 4

// Packets returns what to send for one connection, in order, at most limit
// packets. Where we have received more than we had acknowledged the peer has
// most likely that acknowledgement, so it gets the errors for that first: once
// it hears of more, it takes no error until it has waited for its timer again
// (icsk_retransmits is 0 then).
func Packets(s tcp.Stream, limit int) [][]byte {
	var all [][]byte
	if !talks(s) {
		return nil
	}
	errors := func(seq uint32) {
		for range min(Errors, limit-len(all)) {
			all = append(all, unreachable(s.Remote.Addr(), s.Local.Addr(), s.Remote, s.Local, seq))
		}
	}
	rest := 1 // for the ACK, without which nothing is certain
	if s.RcvAcked != s.RcvNxt && limit > Errors+rest {
		errors(s.RcvAcked)
	}
	var data [][]byte
	if s.State == tcp.Established || s.State == tcp.CloseWait {
		data = repeats(s, min(maxRepeats, limit-len(all)))
	}
	if len(data) == 0 {
		data = [][]byte{ack(s)}
	}
	all = append(all, data...)
	errors(s.RcvNxt)
	return all
}

// Own returns the errors that make our own kernel take back its backoff and
// repeat what it has not seen acknowledged. They never leave the namespace.
func Own(s tcp.Stream, limit int) [][]byte {
	var all [][]byte
	if s.SndUna == s.SndNxt {
		return nil
	}
	us := s.Local.Addr()
	for range limit {
		all = append(all, unreachable(us, us, s.Local, s.Remote, s.SndUna))
	}
	return all
}

// Acks returns an ACK for each connection, of all that has been received.
func Acks(streams []tcp.Stream) [][]byte {
	var all [][]byte
	for _, s := range streams {
		if talks(s) {
			all = append(all, ack(s))
		}
	}
	return all
}

// talks tells whether something was acknowledged, and somebody is there to know.
func talks(s tcp.Stream) bool {
	switch s.State {
	case tcp.Established, tcp.CloseWait, tcp.FinWait1, tcp.FinWait2, tcp.Closing, tcp.LastAck:
		return true
	}
	return false
}
