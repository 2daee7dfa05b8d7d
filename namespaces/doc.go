// Package namespaces makes, joins, keeps and inspects Linux namespaces.
package namespaces
