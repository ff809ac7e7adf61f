BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE contacts (
	user_id VARCHAR(64) NOT NULL, 
	peer_id VARCHAR(64) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	blocked BOOLEAN NOT NULL, 
	remark VARCHAR(255) NOT NULL, 
	note VARCHAR(1024) NOT NULL, 
	updated_at BIGINT NOT NULL, 
	version BIGINT NOT NULL, 
	PRIMARY KEY (user_id, peer_id)
);
CREATE TABLE group_bans (
	group_id VARCHAR(64) NOT NULL, 
	user_id VARCHAR(64) NOT NULL, 
	until BIGINT NOT NULL, 
	PRIMARY KEY (group_id, user_id)
);
CREATE TABLE groups (
	group_id VARCHAR(64) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	owner VARCHAR(64) NOT NULL, 
	created_at BIGINT NOT NULL, 
	avatar VARCHAR(2048) NOT NULL, 
	announcement VARCHAR(4096) NOT NULL, 
	muted_until BIGINT NOT NULL, 
	who_may_invite VARCHAR(16) NOT NULL, 
	who_may_post VARCHAR(16) NOT NULL, 
	"join" VARCHAR(16) NOT NULL, 
	history_visible BOOLEAN NOT NULL, 
	dismissed_at BIGINT NOT NULL, 
	floor BIGINT NOT NULL, 
	version BIGINT NOT NULL, 
	PRIMARY KEY (group_id)
);
INSERT INTO "groups" VALUES('team','team','alice',1795617040164,'','',0,'members','members','approval',0,0,0,1);
CREATE TABLE join_requests (
	group_id VARCHAR(64) NOT NULL, 
	user_id VARCHAR(64) NOT NULL, 
	note VARCHAR(1024) NOT NULL, 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (group_id, user_id)
);
CREATE TABLE memberships (
	group_id VARCHAR(64) NOT NULL, 
	user_id VARCHAR(64) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	joined_seq BIGINT NOT NULL, 
	muted_until BIGINT NOT NULL, 
	PRIMARY KEY (group_id, user_id)
);
INSERT INTO "memberships" VALUES('team','alice','owner',0,0);
INSERT INTO "memberships" VALUES('team','bob','member',0,0);
CREATE TABLE notices (
	place INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR(64) NOT NULL, 
	sender VARCHAR(64) NOT NULL, 
	topic VARCHAR(255) NOT NULL, 
	content BLOB NOT NULL, 
	UNIQUE (id)
);
CREATE TABLE revoked_tokens (
	token_id VARCHAR(64) NOT NULL, 
	user_id VARCHAR(64) NOT NULL, 
	expires_at BIGINT NOT NULL, 
	PRIMARY KEY (token_id)
);
CREATE TABLE users (
	user_id VARCHAR(64) NOT NULL, 
	password_hash VARCHAR(255), 
	role VARCHAR(16) NOT NULL, 
	disabled BOOLEAN NOT NULL, 
	created_at BIGINT NOT NULL, 
	inbox_floor BIGINT NOT NULL, 
	tokens_after BIGINT NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	avatar VARCHAR(2048) NOT NULL, 
	who_may_message VARCHAR(16) NOT NULL, 
	who_sees_presence VARCHAR(16) NOT NULL, 
	read_receipts BOOLEAN NOT NULL, 
	PRIMARY KEY (user_id)
);
INSERT INTO "users" VALUES('alice','$argon2id$v=19$m=19456,t=2,p=1$s58YZvT9Uie1XIxiHcPaNQ$3yhDsF9cNfgwzo+qSeWBthreHq/0krGJcjBg6Jskw/k','user',0,1795617039571,0,1795617039,'','','everyone','contacts',1);
INSERT INTO "users" VALUES('bob','$argon2id$v=19$m=19456,t=2,p=1$8VIjiplexpMcCFVRtpCJew$ZOkfK6RPRjYQA8/zo82MWpRRRRSVUvLN9rxE4xxZF4c','user',0,1795617039882,0,1795617039,'','','everyone','contacts',1);
CREATE INDEX ix_revoked_tokens_user_id ON revoked_tokens (user_id);
CREATE INDEX ix_revoked_tokens_expires_at ON revoked_tokens (expires_at);
CREATE INDEX ix_contacts_peer_id ON contacts (peer_id);
CREATE INDEX ix_groups_owner ON groups (owner);
CREATE INDEX ix_memberships_user_id ON memberships (user_id);
CREATE INDEX ix_group_bans_user_id ON group_bans (user_id);
CREATE INDEX ix_join_requests_user_id ON join_requests (user_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('notices',1);
COMMIT;
