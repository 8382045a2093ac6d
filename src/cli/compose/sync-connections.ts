/**
 * Most connections that a web process and the master of a worker open besides `DATABASE_CONNECTIONS` once their site has
 * others: as many as shards are under way at once. On a site that is alone they open none of them.
 */
export const syncConnections = 4
