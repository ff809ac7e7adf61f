"""A whole cluster on one machine, as plain processes on loopback: `make cluster`.

    nginx ──▶ gateway-1, gateway-2, service-1 ──▶ Redis, MariaDB, MongoDB

layout      names, ports and folders
mariadb     how MariaDB is started
servers     how all others are started, and when it is ready
nginx       nginx's configuration, from nginx.conf.template
running     starts, watches and stops processes
__main__    the command
"""
