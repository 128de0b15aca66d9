package payment

import "testing"

func TestAmount(t *testing.T) {
	t.Parallel()
	for want, a := range map[string]Amount{
		"5.00 EUR": {500, "EUR"}, "0.07 USD": {7, "USD"}, "12.34 CHF": {1234, "CHF"}, "0.00 EUR": {0, "EUR"},
		"500 JPY": {500, "JPY"}, "0.500 KWD": {500, "KWD"}, "0.00012345 BTC": {12345, "BTC"}, "123456.78 EUR": {12345678, "EUR"},
	} {
		if got := a.String(); got != want {
			t.Errorf("%+v is %q, want %q", a, got, want)
		}
	}
}
