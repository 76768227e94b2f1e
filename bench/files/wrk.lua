-- Prints the counts of a run of wrk as JSON, in the last line.
function done(summary, latency, requests)
   local errors = summary.errors
   local sockets = errors.connect + errors.read + errors.write + errors.timeout
   io.write(string.format(
      '{"micros":%d,"requests":%d,"bytes":%d,"socket_errors":%d,"other_statuses":%d}\n',
      summary.duration, summary.requests, summary.bytes, sockets, errors.status))
end
