"""Between the socket and the routes: how HTTP is read, what stands around every request, the short way in."""
