package books

// schema is the same for SQLite and PostgreSQL: SQLite keeps bytes as they are in a
// column of a type that it does not know. Times are seconds since 1970, and hours
// hours.
const schema = `
create table if not exists quotes (
	id text primary key,
	locked bytea not null,
	method text not null,
	class bigint not null,
	pack text not null,
	tickets text not null,
	price bigint not null,
	currency text not null,
	expires bigint not null,
	state text not null,
	begun bigint not null,
	ref text not null,
	pay text not null,
	hint text not null,
	pending bigint not null,
	reversed bigint not null,
	account bytea,
	epoch bigint,
	outputs bytea
);
create index if not exists quotes_state on quotes (state, expires);
create index if not exists quotes_account on quotes (account, epoch);
create table if not exists outputs (
	key bytea not null,
	hash bytea not null,
	hour bigint not null,
	change bigint not null,
	primary key (key, hash)
);
create index if not exists outputs_hour on outputs (key, hour);
create table if not exists spent (
	key bytea not null,
	serial bytea not null,
	hour bigint not null,
	contract bytea not null,
	primary key (key, serial)
);
create index if not exists spent_hour on spent (key, hour);
create table if not exists swaps (
	contract bytea primary key,
	hour bigint not null
);
create table if not exists deposits (
	serial bytea primary key,
	center bytea not null,
	n bigint not null,
	key bytea not null,
	class bigint not null,
	amount bigint not null,
	blank bytea not null,
	contract bytea not null,
	hour bigint not null,
	epoch bigint not null,
	unique (center, n)
);
create index if not exists deposits_hour on deposits (key, hour);
create table if not exists payouts (
	reference text primary key,
	center bytea not null,
	n bigint not null,
	units bigint not null,
	time bigint not null,
	unique (center, n)
);
create table if not exists refunds (
	serial bytea primary key,
	units bigint not null,
	hour bigint not null
);
create table if not exists disputes (
	id text primary key,
	serial bytea not null unique,
	center bytea not null,
	class bigint not null,
	tab bytea not null,
	record bytea not null,
	paid bigint not null,
	held bigint not null,
	outputs bytea not null,
	until bigint not null,
	state text not null,
	units bigint not null
);
create index if not exists disputes_center on disputes (center, state);
create table if not exists accounts (
	unit text not null,
	name text not null,
	balance bigint not null,
	primary key (unit, name)
);
create table if not exists postings (
	entry text not null,
	unit text not null,
	name text not null,
	amount bigint not null,
	hour bigint not null,
	primary key (entry, unit, name)
);
create table if not exists finals (
	epoch bigint primary key,
	counters text not null
);
create table if not exists centers (
	id bytea primary key,
	name text not null,
	url text not null
);
create table if not exists grants (
	account bytea primary key,
	name text not null unique,
	packs bigint not null
);
`
