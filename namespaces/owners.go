package namespaces

import "errors"

// ErrOwnersClosed says that an [Owners] was used after Close.
var ErrOwnersClosed = errors.New("the owners are closed")
