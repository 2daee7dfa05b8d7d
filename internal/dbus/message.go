package dbus

import (
	"encoding/binary"
	"fmt"
)

// Types of messages.
const (
	TypeCall   = 1
	TypeReturn = 2
	TypeError  = 3
	TypeSignal = 4
)

// noReply is the flag of a call whose answer nobody awaits.
const noReply = 1

// A Message is what comes in, or with its first fields what is sent.
type Message struct {
	Type                         byte
	Path, Interface, Member      string
	Destination                  string
	Serial, ReplySerial          uint32
	ErrorName, Sender, Signature string
	body                         []byte
	order                        binary.ByteOrder
}

// Body reads the values of the message.
func (m *Message) Body() *Decoder { return &Decoder{b: m.body, order: m.order} }

// Codes of the header fields.
const (
	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldErrorName   = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSender      = 7
	fieldSignature   = 8
)

// fixedSize is the length of the part of a header that every message has; the last word is the length of the fields.
const fixedSize = 16

// maxMessage bounds what is read. The specification allows 128 MiB; what systemd says to us has some hundred bytes.
const maxMessage = 1 << 20

// marshal makes the message of a call.
func (m *Message) marshal(flags byte, body []byte) []byte {
	e := &Encoder{}
	e.b = append(e.b, 'l', TypeCall, flags, 1)
	e.Uint32(uint32(len(body)))
	e.Uint32(m.Serial)
	e.Array(8, func() {
		field := func(code byte, sig, v string) {
			if v == "" {
				return
			}
			e.Struct()
			e.Byte(code)
			e.Variant(sig)
			if sig == "g" {
				e.Signature(v)
			} else {
				e.String(v)
			}
		}
		field(fieldPath, "o", m.Path)
		field(fieldInterface, "s", m.Interface)
		field(fieldMember, "s", m.Member)
		field(fieldDestination, "s", m.Destination)
		field(fieldSignature, "g", m.Signature)
	})
	e.align(8)
	return append(e.b, body...)
}

// sizes reads the fixed part of a header: how long the whole message is, and where its body begins.
func sizes(head []byte) (order binary.ByteOrder, begin, total int, err error) {
	switch head[0] {
	case 'l':
		order = binary.LittleEndian
	case 'B':
		order = binary.BigEndian
	default:
		return nil, 0, 0, ErrMalformed
	}
	body, fields := order.Uint32(head[4:]), order.Uint32(head[12:])
	if body > maxMessage || fields > maxMessage {
		return nil, 0, 0, fmt.Errorf("%w: longer than %d bytes", ErrMalformed, maxMessage)
	}
	begin = (fixedSize + int(fields) + 7) / 8 * 8
	return order, begin, begin + int(body), nil
}

// parse reads a whole message.
func parse(b []byte) (*Message, error) {
	if len(b) < fixedSize {
		return nil, ErrMalformed
	}
	order, begin, total, err := sizes(b)
	if err != nil || total != len(b) || b[3] != 1 {
		return nil, ErrMalformed
	}
	m := &Message{Type: b[1], Serial: order.Uint32(b[8:]), body: b[begin:], order: order}
	end := fixedSize + int(order.Uint32(b[12:]))
	d := &Decoder{b: b[:end], pos: fixedSize, order: order}
	for d.pos < end && d.err == nil {
		d.take(8, 0)
		m.field(d, d.Byte(), d.Signature())
	}
	return m, d.err
}

// field reads one header field; those of later versions of the protocol are passed over.
func (m *Message) field(d *Decoder, code byte, sig string) {
	texts := map[byte]*string{fieldPath: &m.Path, fieldInterface: &m.Interface, fieldMember: &m.Member,
		fieldErrorName: &m.ErrorName, fieldDestination: &m.Destination, fieldSender: &m.Sender}
	switch to := texts[code]; {
	case to != nil && (sig == "s" || sig == "o"):
		*to = d.String()
	case code == fieldSignature && sig == "g":
		m.Signature = d.Signature()
	case code == fieldReplySerial && sig == "u":
		m.ReplySerial = d.Uint32()
	default:
		if d.skip(sig, 0) != "" {
			d.err = ErrMalformed
		}
	}
}

// A RemoteError is an answer that says no.
type RemoteError struct {
	Name string // such as "org.freedesktop.DBus.Error.ServiceUnknown"
	Text string
}

// Error returns text and name.
func (e *RemoteError) Error() string {
	if e.Text == "" {
		return e.Name
	}
	return e.Text + " (" + e.Name + ")"
}

func remoteError(m *Message) error {
	e := &RemoteError{Name: m.ErrorName}
	if len(m.Signature) > 0 && m.Signature[0] == 's' {
		e.Text = m.Body().String()
	}
	return e
}
