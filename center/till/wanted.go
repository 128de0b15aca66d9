package till

import (
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/challenge"
)

// maxWanted bounds the challenges of one refusal: they are a header field, of which
// clients read so much and no more.
const maxWanted = 8

// Wanted says which tickets pay for a slice, as WWW-Authenticate has it (RFC 9577,
// section 2.1): a challenge for each mint and class that the present offer names, with
// this month's key where it is known. Any client of the standard learns by it where to
// get some. They are not shown in return: what is paid is signed for, see Pay.
func (t *Till) Wanted() string {
	o, err := api.OpenOffer(t.Offer())
	if err != nil {
		t.log.Error("read the present offer", "err", err)
		return ""
	}
	var list []challenge.Offer
	for _, issuer := range o.Issuers {
		for _, c := range o.Classes {
			if len(list) == maxWanted {
				break
			}
			want := challenge.Offer{Challenge: ticket.Challenge(issuer, c)}
			if k := t.keys.present(issuer, c, o.Slice, ticket.EpochAt(t.now())); k != nil {
				want.Key = k.Public()
			}
			list = append(list, want)
		}
	}
	return challenge.Format(list...)
}
