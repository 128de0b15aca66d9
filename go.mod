module github.com/tradle/cloudpal

go 1.26
