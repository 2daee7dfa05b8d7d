package namespaces

import "fmt"

// Target is a namespace of one kind. Its zero Namespace is a new one.
type Target struct {
	Kind Kind
	Namespace
}

// In returns the target for kind k and namespace n: In(Net, JoinPath("/run/netns/blue")).
func In(k Kind, n Namespace) Target { return Target{k, n} }

// Panic is the value with which [Do] panics when the function it ran did: the value, and the stack of the goroutine in
// which it happened.
type Panic struct {
	Value any
	Stack []byte
}

func (p *Panic) Error() string {
	return fmt.Sprintf("panic in a namespace: %v\n\n%s", p.Value, p.Stack)
}

// Unwrap returns the value if it is an error.
func (p *Panic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}
