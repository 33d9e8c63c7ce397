#!/bin/bash
# Runs once, when the data folder is new: the account that Duckling logs in with, and nothing more than it needs.
set -euo pipefail

password=$(<"$DUCKLING_PASSWORD_FILE")
password=${password//\\/\\\\}
password=${password//\'/\\\'}
database=${MYSQL_DATABASE//\`/\`\`}
# In GRANT, _ and % are wildcards.
pattern=${database//_/\\_}
pattern=${pattern//%/\\%}

MYSQL_PWD=$MYSQL_ROOT_PASSWORD mysql --user=root <<SQL
CREATE USER 'duckling'@'%' IDENTIFIED BY '$password' REQUIRE SSL;
GRANT SELECT, LOCK TABLES ON \`$pattern\`.* TO 'duckling'@'%';
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'duckling'@'%';
SQL
