package manifest

// VerifyEd25519 is for the tests that compare it with libsodium.
var VerifyEd25519 = verify
