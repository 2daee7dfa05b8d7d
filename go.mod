module github.com/caisson-go/caisson

go 1.26.0
