package till

import (
	"encoding/hex"
	"encoding/json"
	"errors"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
)

// Receipts returns a page of what the mints gave for the tickets that were taken to them:
// those of so many payments after the one that after names, "" for the first. They are
// there until their keys' tickets are worth nothing any more. It is for the center's
// operator: their order says which tickets were one pal's.
func (t *Till) Receipts(after string, most int) (page api.Receipts, err error) {
	from, err := hex.DecodeString(after)
	if err != nil || len(from) > 0 && len(from) != len(api.TabID{})+8 {
		return page, cloudpal.E("list receipts", cloudpal.Invalid, errors.New("after is not what an earlier page has said")).
			WithHint("leave it out for the first page")
	}
	page.Receipts = []api.Receipt{}
	n := 0
	err = t.store.after(payments, from, func(key, value []byte) (more bool, err error) {
		var p payment
		if err := json.Unmarshal(value, &p); err != nil {
			return false, err
		}
		if p.Is == deposited && p.Receipt != nil {
			signed, err := json.Marshal(p.Receipt)
			if err != nil {
				return false, err
			}
			page.Receipts = append(page.Receipts, api.Receipt{Issuer: p.Issuer, Signed: signed})
		}
		if n++; n == most {
			page.Next = hex.EncodeToString(key)
		}
		return n < most, nil
	})
	return page, err
}
