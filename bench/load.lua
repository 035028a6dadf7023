-- Posts one body again and again; prints what it measured as a line of JSON.
-- wrk … -s load.lua URL -- BODY-FILE [HEADER-LENGTH]
function init(arguments)
    local file = assert(io.open(arguments[1], "rb"))
    wrk.method = "POST"
    wrk.body = file:read("*a")
    file:close()
    if arguments[2] then
        wrk.headers["Content-Type"] = "application/octet-stream"
        wrk.headers["Inference-Header-Content-Length"] = arguments[2]
    else
        wrk.headers["Content-Type"] = "application/json"
    end
end

function done(summary, latency, requests)
    local e = summary.errors
    local failed = e.connect + e.read + e.write + e.status + e.timeout
    io.write(string.format(
        'RESULT {"requests": %d, "seconds": %.6f, "failed": %d, "p50_us": %d, "p99_us": %d}\n',
        summary.requests, summary.duration / 1e6, failed,
        latency:percentile(50), latency:percentile(99)))
end
